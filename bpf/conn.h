/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * Connections: found, made, moved from state to state, ended; and what of them is counted at their servers.
 *
 * Counts are exact although nothing is locked: every change of what a connection counts as is one
 * compare-and-swap of the word with its flags, and who succeeds moves the counters. CONN_DEAD goes in by one step, too,
 * so that only one deletes.
 *
 * An entry may be deleted and given to another connection while a program on another CPU still holds it, for one packet's run.
 * What that program then does it does to the new one: a packet or a change of state goes to the wrong account, and an end marks
 * the new one DEAD and counts it as ended, but deletes by the old key, which is nobody's. Such an entry is nobody's either
 * from then on, and is deleted by `reap` once its time is over (see bury).
 */
#ifndef REEVE_CONN_H
#define REEVE_CONN_H

#include "kernel.h"
#include "maps.h"
#include "parse.h"
#include "tcp.h"

/* Being deleted; never seen from user space. */
#define CONN_DEAD 0x10

#define PORT_20 be16(20)
#define PORT_21 be16(21)

INLINE __u32 now_tick(void)
{
	return bpf_ktime_get_coarse_ns() >> TICK_SHIFT;
}

INLINE const struct configuration *config_now(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&configuration, &zero);
}

INLINE struct server *server_of(__u32 id)
{
	return bpf_map_lookup_elem(&servers, &id);
}

INLINE struct load *load_of(__u32 id)
{
	return bpf_map_lookup_elem(&loads, &id);
}

/* Beside the packet: what was found out about it. */
struct plan {
	__u32 server; /* id */
	__u32 mtu;    /* STEP_TOO_BIG */
	__u32 now;
	__be16 port;  /* the new one, of the destination (in) or source (out) */
	__u16 flags;  /* CONN_* */
	__be32 address[4]; /* out: the virtual address; a flow: the new source */
	__s32 verdict; /* TC_ACT_*, once it has been sent */
	__u32 mark;    /* of the packet */
	__u32 control; /* counts a new connection of a template; else 0 */
	__u32 again;   /* the connection that is there is to give way to a new one */
};

/* --- keys ---------------------------------------------------------------------------------------------- */

union tuple {
	struct tuple4 v4;
	struct tuple6 v6;
};

INLINE void tuple(union tuple *t, __u8 family, __u8 protocol, const __be32 *source, const __be32 *destination,
		  __be16 source_port, __be16 destination_port)
{
	if (family == FAMILY_V4) {
		t->v4.source = source[0];
		t->v4.destination = destination[0];
		t->v4.source_port = source_port;
		t->v4.destination_port = destination_port;
		t->v4.protocol = protocol;
		t->v4.zero[0] = t->v4.zero[1] = t->v4.zero[2] = 0;
	} else {
		__builtin_memcpy(t->v6.source, source, 16);
		__builtin_memcpy(t->v6.destination, destination, 16);
		t->v6.source_port = source_port;
		t->v6.destination_port = destination_port;
		t->v6.protocol = protocol;
		t->v6.zero[0] = t->v6.zero[1] = t->v6.zero[2] = 0;
	}
}

/* Dead or alive. */
INLINE struct conn *look(__u8 family, const union tuple *t)
{
	if (family == FAMILY_V4)
		return bpf_map_lookup_elem(&conn4, &t->v4);
	return bpf_map_lookup_elem(&conn6, &t->v6);
}

INLINE struct conn *find(__u8 family, const union tuple *t)
{
	struct conn *conn = look(family, t);
	return conn && !(conn->flags & CONN_DEAD) ? conn : 0;
}

/* Over its time, and so absent. */
INLINE int over(const struct conn *conn, __u32 now)
{
	return (__s32)(now - conn->last) > (__s32)conn->timeout;
}

/* --- counters of servers ------------------------------------------------------------------------------- */

/* How many connections gave way within this tick. */
INLINE __u32 lapsed(__u32 flags, __u32 now)
{
	return flags >> LOAD_LAPSED_TICK == (now & 0xffff) ? flags >> LOAD_LAPSED & 255 : 0;
}

/* One more gives way. Tried once against other CPUs, and no more than 255 are noted: each weighs little, and for a tick. */
INLINE void lapse(struct load *load, __u32 now)
{
	__u32 flags = *(volatile __u32 *)&load->flags, many = lapsed(flags, now);
	if (many == 255)
		return;
	__u32 next = (flags & 255) | (many + 1) << LOAD_LAPSED | now << LOAD_LAPSED_TICK;
	__sync_val_compare_and_swap(&load->flags, flags, next);
}

/* All of its connections, as IPVS counts them now. */
INLINE __u32 all_of(const struct load *load)
{
	__u32 flags = load->flags, all = load->active + load->inactive;
	return flags >> LOAD_LAPSED ? all + lapsed(flags, now_tick()) : all;
}

/* Is an overloaded server one no more? */
INLINE int eased(const struct server *server, struct load *load)
{
	__u64 total = all_of(load);
	if (server->upper && (server->lower ? total >= server->lower : total * 4 >= (__u64)server->upper * 3))
		return 0;
	__sync_fetch_and_and(&load->flags, ~LOAD_OVERLOADED);
	return 1;
}

/* So many are too many. */
INLINE int overload(const struct server *server, struct load *load, __u32 total)
{
	if (!server->upper || total < server->upper)
		return 0;
	if (!(load->flags & LOAD_OVERLOADED))
		__sync_fetch_and_or(&load->flags, LOAD_OVERLOADED);
	return 1;
}

/* Asked by those who look for a server: its thresholds may have changed since its last connection came or ended. */
INLINE int overloaded(const struct server *server, struct load *load)
{
	return overload(server, load, all_of(load)) ||
	       (load->flags & LOAD_OVERLOADED && !eased(server, load));
}

/* One more, inactive as every connection begins. */
INLINE void bind(const struct server *server, struct load *load)
{
	__sync_fetch_and_add(&load->inactive, 1);
	overload(server, load, all_of(load));
}

INLINE void unbind(const struct server *server, struct load *load, int inactive)
{
	overload(server, load, load->active + load->inactive);
	if (inactive)
		__sync_fetch_and_add(&load->inactive, -1);
	else
		__sync_fetch_and_add(&load->active, -1);
	if (load->flags & LOAD_OVERLOADED)
		eased(server, load);
}

INLINE void count_in(__u32 server, __u32 bytes, int first)
{
	struct statistics *s = bpf_map_lookup_elem(&statistics, &server);
	if (!s)
		return;
	s->connections += first;
	s->packets_in += !first;
	s->bytes_in += bytes;
}

INLINE void count_out(__u32 server, __u32 bytes)
{
	struct statistics *s = bpf_map_lookup_elem(&statistics, &server);
	if (!s)
		return;
	s->packets_out += 1;
	s->bytes_out += bytes;
}

/* --- counters of templates ----------------------------------------------------------------------------- */

INLINE __u32 *control_of(__u32 control)
{
	return bpf_map_lookup_elem(&controls, &control);
}

/* A connection of the template was established. */
INLINE void assure(__u32 control)
{
	__u32 *counter = control_of(control);
	if (counter && !(*counter & CONTROL_ASSURED))
		__sync_fetch_and_or(counter, CONTROL_ASSURED);
}

/* --- life ---------------------------------------------------------------------------------------------- */

/* The word with flags (low half) and port. */
INLINE __u32 *flags_word(struct conn *conn)
{
	return (__u32 *)&conn->flags;
}

/* Takes a packet of the connection into account. */
INLINE void step(struct conn *conn, const struct configuration *config, const struct packet *p, int out, __u32 now)
{
	__u32 timeout = config->udp, word = *flags_word(conn);
	if (p->protocol == PROTOCOL_TCP) {
		enum direction direction = out ? DIRECTION_OUT : DIRECTION_IN;
		__u32 want = word;
		if (word & CONN_NO_OUTPUT) {
			if (out)
				want &= ~CONN_NO_OUTPUT;
			else
				direction = DIRECTION_IN_ONLY;
		}
		__u8 state = tcp_step(config->flags & CONFIG_SECURE_TCP, conn->state, direction, tcp_event(p->flags));
		if (tcp_active(state))
			want &= ~CONN_INACTIVE;
		else
			want |= CONN_INACTIVE;
		if (want != word && !(word & CONN_DEAD) &&
		    __sync_val_compare_and_swap(flags_word(conn), word, want) == word &&
		    (want ^ word) & CONN_INACTIVE) {
			struct load *load = load_of(conn->server);
			if (load) {
				int to_active = want & CONN_INACTIVE ? -1 : 1;
				__sync_fetch_and_add(&load->active, to_active);
				__sync_fetch_and_add(&load->inactive, -to_active);
			}
		}
		if (state != conn->state)
			conn->state = state;
		timeout = config->tcp[state & 15];
		if (conn->control && state == TCP_ESTABLISHED)
			assure(conn->control);
	} else if (conn->control && out) {
		assure(conn->control);
	}
	if (conn->timeout != timeout)
		conn->timeout = timeout;
	if (conn->last != now)
		conn->last = now;
	if (!out)
		conn->packets++;
}

/* The key of the server's packets, from that of the client's. */
INLINE void back_key(union tuple *back, __u8 family, const union tuple *t, const struct server *server, __be16 port)
{
	if (family == FAMILY_V4)
		tuple(back, family, t->v4.protocol, server->address, &t->v4.source, port, t->v4.source_port);
	else
		tuple(back, family, t->v6.protocol, server->address, t->v6.source, port, t->v6.source_port);
}

/* The virtual address and port of a reply; 0 when there is none. */
INLINE int back_find(__u8 family, const union tuple *t, __be32 *address, __be16 *port)
{
	if (family == FAMILY_V4) {
		struct back4 *back = bpf_map_lookup_elem(&back4, &t->v4);
		if (!back)
			return 0;
		address[0] = back->address;
		*port = back->port;
	} else {
		struct back6 *back = bpf_map_lookup_elem(&back6, &t->v6);
		if (!back)
			return 0;
		__builtin_memcpy(address, back->address, 16);
		*port = back->port;
	}
	return 1;
}

INLINE long back_put(__u8 family, const union tuple *t, const struct packet *p)
{
	if (family == FAMILY_V4) {
		struct back4 back = {.address = p->destination[0], .port = p->destination_port};
		return bpf_map_update_elem(&back4, &t->v4, &back, BPF_NOEXIST);
	}
	struct back6 back = {.port = p->destination_port};
	__builtin_memcpy(back.address, p->destination, 16);
	return bpf_map_update_elem(&back6, &t->v6, &back, BPF_NOEXIST);
}

INLINE void back_delete(__u8 family, const union tuple *t)
{
	if (family == FAMILY_V4)
		bpf_map_delete_elem(&back4, &t->v4);
	else
		bpf_map_delete_elem(&back6, &t->v6);
}

/* Is the way back that of this connection? */
INLINE int back_is_of(__u8 family, const union tuple *back, const union tuple *t)
{
	__be32 address[4] = {};
	__be16 port = 0;
	if (!back_find(family, back, address, &port))
		return 0;
	if (family == FAMILY_V4)
		return address[0] == t->v4.destination && port == t->v4.destination_port;
	return address[0] == t->v6.destination[0] && address[1] == t->v6.destination[1] &&
	       address[2] == t->v6.destination[2] && address[3] == t->v6.destination[3] && port == t->v6.destination_port;
}

INLINE void conn_delete(__u8 family, const union tuple *t)
{
	if (family == FAMILY_V4)
		bpf_map_delete_elem(&conn4, &t->v4);
	else
		bpf_map_delete_elem(&conn6, &t->v6);
}

/* Ends a connection, whoever else wants to: 1 for the one who did. `key` is its key, and goes onto this function's stack
 * (see LOCAL). */
GLOBAL int end(const union tuple *key, __u32 family, __u32 now, __u32 force)
{
	if (!key)
		return 0;
	union tuple t = *key;
	struct conn *conn = find(family, &t);
	if (!conn || (!force && !over(conn, now)))
		return 0;
	__u32 word = __sync_fetch_and_or(flags_word(conn), CONN_DEAD);
	if (word & CONN_DEAD)
		return 0;
	__u32 id = conn->server, control = conn->control;
	struct server *server = server_of(id);
	struct load *load = load_of(id);
	if (server && load) {
		unbind(server, load, !!(word & CONN_INACTIVE));
		if ((word & CONN_METHOD) == METHOD_NAT) {
			/* In the same place: there is no stack to spare. */
			back_key(&t, family, key, server, word >> 16);
			if (back_is_of(family, &t, key))
				back_delete(family, &t);
			t = *key;
		}
	}
	if (control) {
		__u32 *counter = control_of(control);
		if (counter)
			__sync_fetch_and_add(counter, -1);
	}
	conn_delete(family, &t);
	count(COUNTER_DELETED);
	return 1;
}

/* For `reap`: deletes an entry that an end marked and missed. It was counted then. */
GLOBAL int bury(const union tuple *key, __u32 family, __u32 now)
{
	if (!key)
		return 0;
	union tuple t = *key;
	struct conn *conn = look(family, &t);
	if (conn && conn->flags & CONN_DEAD && over(conn, now))
		conn_delete(family, &t);
	return 0;
}

enum made {
	MADE,
	MADE_CLASH, /* the server's tuple is another living connection's */
	MADE_FULL,  /* no room, or another CPU was first */
};

#define EEXIST 17

/* Somebody has the server's tuple: ends that one if it is over its time or closing; 1 if the tuple is free now. `mine` is the key of the
 * connection that wants it; both are of the same client's end. */
LOCAL int back_clear(const union tuple *mine, const union tuple *back, __u32 family, __u32 now)
{
	if (!mine || !back)
		return 0;
	union tuple t = *mine;
	__be32 address[4] = {};
	__be16 port = 0;
	if (!back_find(family, back, address, &port))
		return 1;
	if (family == FAMILY_V4) {
		t.v4.destination = address[0];
		t.v4.destination_port = port;
	} else {
		__builtin_memcpy(t.v6.destination, address, 16);
		t.v6.destination_port = port;
	}
	struct conn *conn = look(family, &t);
	if (!conn) {
		/* Left over: a connection is put in before its way back. */
		back_delete(family, back);
		return 1;
	}
	/* Another CPU is just ending it, and will delete this. */
	if (conn->flags & CONN_DEAD && !over(conn, now))
		return 0;
	if (conn->flags & CONN_DEAD) {
		back_delete(family, back);
		return 1;
	}
	__u8 state = conn->state, protocol = family == FAMILY_V4 ? back->v4.protocol : back->v6.protocol;
	int closing = protocol == PROTOCOL_TCP && (state == TCP_CLOSE || state == TCP_TIME_WAIT);
	return end(&t, family, now, closing);
}

/* Puts a new connection in, and counts it. `p` is the client's packet, `t` its tuple, the plan says what it is to be. */
LOCAL int make(const struct packet *p, const union tuple *t, const struct plan *plan)
{
	if (!p || !t || !plan)
		return MADE_FULL;
	const struct configuration *config = config_now();
	const struct server *server = server_of(plan->server);
	struct load *load = load_of(plan->server);
	if (!config || !server || !load)
		return MADE_FULL;
	struct conn conn = {
		.last = plan->now,
		.timeout = config->udp,
		.server = plan->server,
		.control = plan->control,
		.created = plan->now,
		.flags = plan->flags,
		.port = plan->port,
	};
	long failed;
	if (p->family == FAMILY_V4)
		failed = bpf_map_update_elem(&conn4, &t->v4, &conn, BPF_NOEXIST);
	else
		failed = bpf_map_update_elem(&conn6, &t->v6, &conn, BPF_NOEXIST);
	if (failed)
		return MADE_FULL;
	bind(server, load);
	count(COUNTER_CREATED);
	if (plan->control) {
		__u32 *counter = control_of(plan->control);
		if (counter)
			__sync_fetch_and_add(counter, 1);
	}
	return MADE;
}

/* The way back of a connection that was just put in; without one it ends. */
LOCAL int make_back(const struct packet *p, const union tuple *t, const struct plan *plan)
{
	if (!p || !t || !plan)
		return MADE_FULL;
	__u32 family = p->family;
	union tuple back = {};
	const struct server *server = server_of(plan->server);
	if (!server)
		return MADE_FULL;
	back_key(&back, family, t, server, plan->port);
	long failed = back_put(family, &back, p);
	/* It may be left over from one of the same addresses. */
	if (!failed || (failed == -EEXIST && back_is_of(family, &back, t)))
		return MADE;
	enum made made = MADE_FULL;
	if (failed == -EEXIST) {
		if (!back_clear(t, &back, family, plan->now))
			made = MADE_CLASH;
		else if (!back_put(family, &back, p))
			return MADE;
	}
	end(t, family, plan->now, 1);
	return made;
}

#endif
