/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * A full table makes room by itself; see `relief` in abi.h. Else a table would fill up while no control plane sweeps it, and a
 * flood of SYNs would keep everybody out until the next sweep.
 */
#ifndef REEVE_RELIEF_H
#define REEVE_RELIEF_H

#include "conn.h"
#include "kernel.h"
#include "maps.h"
#include "tcp.h"

struct relief {
	__u32 now;
	__u32 seen;
	__u32 ended;
};

/* Opened a while ago, and nobody answered. */
INLINE int half_open(const struct conn *conn, __u8 protocol, __u32 now)
{
	__u8 state = conn->state;
	return protocol == PROTOCOL_TCP && now - conn->created > HALF_OPEN_TICKS &&
	       (state == TCP_SYN_RECV || state == TCP_SYNACK || state == TCP_NONE);
}

INLINE long relieve_one(struct relief *r, const union tuple *t, __u8 family, __u8 protocol, const struct conn *conn)
{
	if (over(conn, r->now) || half_open(conn, protocol, r->now))
		r->ended += end(t, family, r->now, 1);
	r->seen++;
	return r->seen >= RELIEF_SEEN || r->ended >= RELIEF_ENDED;
}

static long relieve4(void *map, const struct tuple4 *key, struct conn *conn, struct relief *r)
{
	union tuple t = {};
	t.v4 = *key;
	return relieve_one(r, &t, FAMILY_V4, key->protocol, conn);
}

static long relieve6(void *map, const struct tuple6 *key, struct conn *conn, struct relief *r)
{
	union tuple t = {};
	t.v6 = *key;
	return relieve_one(r, &t, FAMILY_V6, key->protocol, conn);
}

/* Makes room, once a second: how many entries ended. */
GLOBAL __u32 relieve(__u32 family, __u32 now)
{
	__u32 which = family == FAMILY_V4 ? 0 : 1;
	__u32 *last = bpf_map_lookup_elem(&relief, &which);
	if (!last)
		return 0;
	__u32 before = *last;
	if (now - before < RELIEF_TICKS || __sync_val_compare_and_swap(last, before, now) != before)
		return 0;
	struct relief r = {.now = now};
	if (family == FAMILY_V4) {
		bpf_for_each_map_elem(&conn4, relieve4, &r, 0);
		/* Linux 6.1 wants a call for each map: the compiler may not make one of two. */
		asm volatile("");
	} else {
		bpf_for_each_map_elem(&conn6, relieve6, &r, 0);
	}
	__u32 what = COUNTER_RELIEVED;
	__u64 *counter = bpf_map_lookup_elem(&counters, &what);
	if (counter)
		*counter += r.ended;
	return r.ended;
}

#endif
