/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * ICMP errors of others, about packets that were rewritten or sent through a tunnel here: whom they are for is found by the
 * packet they quote.
 *
 *     from the server's side   quotes  client -> server   about what a client sent: to the client, as from the
 *                                                         virtual address, quoting what the client knows (nat)
 *     from the client's side   quotes  virtual -> client  about what a server sent: to that server, by the
 *                                                         connection's method
 *     about a tunnel           quotes  director -> server [client -> virtual ...]   too big: told to the client, less
 *                                                         the tunnel's own header
 */
#ifndef REEVE_QUOTED_H
#define REEVE_QUOTED_H

#include "conn.h"
#include "icmp.h"
#include "kernel.h"
#include "maps.h"
#include "parse.h"
#include "rewrite.h"
#include "verdict.h"

/* Reads the packet that begins at `at`, of which only the first bytes may be there: addresses, protocol, ports. 0 when that much
 * is. Of IPv6 no extension headers are walked. */
INLINE int read_quote(struct __sk_buff *skb, __u8 family, __u32 at, struct packet *q)
{
	struct {
		__be16 source;
		__be16 destination;
		__u32 rest;
	} ports;
	q->l3 = at;
	q->family = family;
	if (family == FAMILY_V4) {
		struct ip4 ip;
		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version_words >> 4 != 4 ||
		    (ip.version_words & 15) < 5)
			return -1;
		/* A later fragment has no ports to go by. */
		if (be16(ip.fragment) & 0x1fff)
			return -1;
		q->source[0] = ip.source;
		q->destination[0] = ip.destination;
		q->protocol = ip.protocol;
		q->sum = ip.sum;
		q->l4 = at + (ip.version_words & 15) * 4;
		q->length = be16(ip.length);
	} else {
		struct ip6 ip;
		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || be32(ip.version_class_flow) >> 28 != 6)
			return -1;
		__builtin_memcpy(q->source, ip.source, 16);
		__builtin_memcpy(q->destination, ip.destination, 16);
		q->protocol = ip.next;
		q->l4 = at + sizeof(ip);
		q->length = be16(ip.length) + sizeof(ip);
	}
	/* RFC 792: at least 8 bytes of what follows. */
	if (bpf_skb_load_bytes(skb, q->l4, &ports, sizeof(ports)))
		return -1;
	q->source_port = ports.source;
	q->destination_port = ports.destination;
	return 0;
}

/* Puts another address and port into the quote, at its source or destination, and into the message's checksum what that
 * changes. In IPv4 the quoted header's own checksum makes up for the address. */
GLOBAL int quote_replace(struct __sk_buff *skb, const struct packet *p, const struct packet *q, const struct ends *to)
{
	if (!p || !q || !to)
		return -1;
	if (p->family == FAMILY_V4) {
		struct {
			__be16 sum;
			__be32 source;
			__be32 destination;
		} __attribute__((packed)) tail = {q->sum, to->source[0], to->destination[0]};
		tail.sum = sum_replace(tail.sum, q->source[0], to->source[0]);
		tail.sum = sum_replace(tail.sum, q->destination[0], to->destination[0]);
		if (bpf_skb_store_bytes(skb, q->l3 + 10, &tail, sizeof(tail), 0))
			return -1;
	} else {
		__s64 diff = bpf_csum_diff(q->source, 16, to->source, 16, 0);
		diff = bpf_csum_diff(q->destination, 16, to->destination, 16, diff);
		if (diff < 0 || bpf_l4_csum_replace(skb, sum_at(p), 0, diff, 0) ||
		    bpf_skb_store_bytes(skb, q->l3 + 8, to->source, 16, 0) ||
		    bpf_skb_store_bytes(skb, q->l3 + 24, to->destination, 16, 0))
			return -1;
	}
	if (q->source_port != to->source_port &&
	    (bpf_l4_csum_replace(skb, sum_at(p), q->source_port, to->source_port, 2) ||
	     bpf_skb_store_bytes(skb, q->l4, &to->source_port, 2, 0)))
		return -1;
	if (q->destination_port != to->destination_port &&
	    (bpf_l4_csum_replace(skb, sum_at(p), q->destination_port, to->destination_port, 2) ||
	     bpf_skb_store_bytes(skb, q->l4 + 2, &to->destination_port, 2, 0)))
		return -1;
	return 0;
}

/* From the server's side: STEP_OUT, with plan->address the virtual one, when the client has such a connection. */
GLOBAL int quoted_in(struct __sk_buff *skb, const struct packet *p, const struct packet *q, struct plan *plan)
{
	union tuple t = {};
	if (!p || !q || !plan)
		return STEP_PASS;
	tuple(&t, q->family, q->protocol, q->destination, q->source, q->destination_port, q->source_port);
	__be16 port = 0;
	if (!back_find(q->family, &t, plan->address, &port))
		return STEP_PASS;
	tuple(&t, q->family, q->protocol, q->source, plan->address, q->source_port, port);
	struct conn *conn = find(q->family, &t);
	if (!conn || over(conn, plan->now))
		return STEP_PASS;
	struct ends to;
	ends_of(&to, q);
	__builtin_memcpy(to.destination, plan->address, 16);
	to.destination_port = port;
	plan->flags = conn->flags;
	plan->server = conn->server;
	return quote_replace(skb, p, q, &to) ? STEP_SHOT : STEP_OUT;
}

/* From the client's side: STEP_IN when the server that it is about is known. */
GLOBAL int quoted_out(struct __sk_buff *skb, const struct packet *p, const struct packet *q, struct plan *plan)
{
	union tuple t = {};
	if (!p || !q || !plan)
		return STEP_PASS;
	tuple(&t, q->family, q->protocol, q->destination, q->source, q->destination_port, q->source_port);
	struct conn *conn = find(q->family, &t);
	if (!conn || over(conn, plan->now))
		return STEP_PASS;
	const struct server *server = server_of(conn->server);
	if (!server || server->flags & SERVER_GONE)
		return STEP_PASS;
	plan->flags = conn->flags;
	plan->server = conn->server;
	if ((conn->flags & CONN_METHOD) != METHOD_NAT)
		return STEP_IN;
	struct ends to;
	ends_of(&to, q);
	__builtin_memcpy(to.source, server->address, 16);
	to.source_port = conn->port;
	return quote_replace(skb, p, q, &to) ? STEP_SHOT : STEP_IN;
}

/* Is the message that a packet does not fit? RFC 1191 §4, RFC 4443 §3.2. */
INLINE int says_too_big(struct __sk_buff *skb, const struct packet *p, __u32 *mtu)
{
	struct icmp_head icmp;
	if (bpf_skb_load_bytes(skb, p->l4, &icmp, sizeof(icmp)))
		return 0;
	*mtu = be32(icmp.word);
	if (p->family == FAMILY_V6)
		return icmp.type == 2;
	*mtu &= 0xffff;
	return icmp.type == 3 && icmp.code == 4;
}

/* A tunnel's packet did not fit: the client is told, as if there were none. `q` is the tunnel's header. What is left of the
 * message, from the client's packet on, becomes the quote of a new one: it is cut out here, and `p` then is that packet (STEP_REQUOTE). */
GLOBAL int quoted_tunnel(struct __sk_buff *skb, struct packet *p, const struct packet *q, struct plan *plan)
{
	union tuple t = {};
	__u32 mtu = 0;
	if (!p || !q || !plan || !says_too_big(skb, p, &mtu))
		return STEP_PASS;
	__u32 l3 = p->l3, end = p->l3 + p->length, front = p->l4 - p->l3, tunnel = q->l4 - q->l3;
	/* The inner packet of the same family: headers of the same lengths change places. */
	if (read_quote(skb, p->family, q->l4, p))
		return STEP_PASS;
	tuple(&t, p->family, p->protocol, p->source, p->destination, p->source_port, p->destination_port);
	struct conn *conn = find(p->family, &t);
	if (!conn || over(conn, plan->now) || (conn->flags & CONN_METHOD) != METHOD_TUN)
		return STEP_PASS;
	const struct server *server = server_of(conn->server);
	if (!server || server->family != p->family || server->address[0] != q->destination[0] ||
	    server->address[1] != q->destination[1] || server->address[2] != q->destination[2] ||
	    server->address[3] != q->destination[3])
		return STEP_PASS;
	__u32 header = tunnel_len(server), there = end - q->l4;
	__u32 len = quoted(there < p->length ? there : p->length), before = p->l4 - p->l3;
	if (tunnel != header || front != header || mtu < header + 28 || len < before + 8)
		return STEP_PASS;
	plan->mtu = mtu - header;
	p->l3 = l3;
	p->l4 = l3 + before;
	p->length = len;
	if (bpf_skb_change_tail(skb, q->l4 + len, 0) || bpf_skb_adjust_room(skb, -(__s32)header, BPF_ADJ_ROOM_MAC, 0))
		return STEP_SHOT;
	count(COUNTER_ICMP);
	return STEP_REQUOTE;
}

/* The rest of STEP_REQUOTE. */
GLOBAL int requote(struct __sk_buff *skb, const struct packet *p)
{
	struct way way = {};
	if (!p || route(skb, p->family, p->destination, p->source, 0, 0, &way) != ROUTED)
		return TC_ACT_SHOT;
	return leave(&way);
}

/* An error came by: STEP_IN or STEP_OUT when it is about one of our connections, and then its quote is as the receiver knows
 * it; or STEP_REQUOTE. */
GLOBAL int quoted_error(struct __sk_buff *skb, struct packet *p, struct plan *plan)
{
	struct packet q = {};
	if (!p || !plan || read_quote(skb, p->family, p->l4 + sizeof(struct icmp_head), &q))
		return STEP_PASS;
	if (q.protocol == PROTOCOL_IPIP || q.protocol == PROTOCOL_IP6)
		return quoted_tunnel(skb, p, &q, plan);
	if (q.protocol != PROTOCOL_TCP && q.protocol != PROTOCOL_UDP)
		return STEP_PASS;
	int step = quoted_in(skb, p, &q, plan);
	if (step == STEP_PASS)
		step = quoted_out(skb, p, &q, plan);
	if (step != STEP_PASS)
		count(COUNTER_ICMP);
	return step;
}

#endif
