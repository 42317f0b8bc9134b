/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * Ends what user space names: it walks the tables, and this moves the counters.
 */
#ifndef REEVE_REAP_H
#define REEVE_REAP_H

#include "conn.h"
#include "kernel.h"
#include "maps.h"
#include "persist.h"

struct reap {
	struct __sk_buff *skb;
	__u32 what;
	__u32 now;
	__u32 ended;
};

static long reap_one(__u32 turn, struct reap *r)
{
	union tuple t = {};
	struct template_key key;
	__u32 force = r->what & REAP_FORCE, at = ETHERNET_LEN + sizeof(struct reap_request);
	switch (r->what & ~REAP_FORCE) {
	case REAP_CONN4:
		if (bpf_skb_load_bytes(r->skb, at + turn * sizeof(t.v4), &t, sizeof(t.v4)))
			return 1;
		r->ended += end(&t, FAMILY_V4, r->now, force);
		bury(&t, FAMILY_V4, r->now);
		return 0;
	case REAP_CONN6:
		if (bpf_skb_load_bytes(r->skb, at + turn * sizeof(t.v6), &t, sizeof(t.v6)))
			return 1;
		r->ended += end(&t, FAMILY_V6, r->now, force);
		bury(&t, FAMILY_V6, r->now);
		return 0;
	case REAP_TEMPLATES:
		if (bpf_skb_load_bytes(r->skb, at + turn * sizeof(key), &key, sizeof(key)))
			return 1;
		r->ended += template_reap(&key, r->now, force);
		return 0;
	}
	return 1;
}

/* Run by user space alone: see reap_request. */
SECTION("classifier") int reap(struct __sk_buff *skb)
{
	struct reap_request request;
	if (bpf_skb_load_bytes(skb, ETHERNET_LEN, &request, sizeof(request)))
		return 0;
	struct reap r = {.skb = skb, .what = request.what, .now = now_tick()};
	bpf_loop(request.count < REAP_KEYS ? request.count : REAP_KEYS, reap_one, &r, 0);
	return r.ended;
}

#endif
