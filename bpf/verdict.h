/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * Where a packet goes: the way there as the kernel's tables have it, how long a packet may be on it, and the
 * packet sent on, rewritten (nat), as it is (dr) or in another (tun).
 */
#ifndef REEVE_VERDICT_H
#define REEVE_VERDICT_H

#include "conn.h"
#include "kernel.h"
#include "parse.h"
#include "rewrite.h"

/* On with it: other programs and filters at the interface are asked, then the host's stack gets it. */
#define TC_ACT_UNSPEC (-1)
#define TC_ACT_SHOT 2

#define AF_INET 2
#define AF_INET6 10

/* What is to become of a packet. Up to STEP_SHOT these are final. */
enum step {
	STEP_PASS,    /* not ours: on with it, to the host's stack */
	STEP_SHOT,
	STEP_IN,      /* to the server */
	STEP_OUT,     /* a reply, to the client */
	STEP_NOBODY,  /* no server: tell the client */
	STEP_TOO_BIG, /* tell the sender what fits */
	STEP_TTL,     /* tell the sender */
	STEP_REQUOTE, /* a new message is to be put around the quote */
	STEP_FLOW,    /* of an explicit flow */
	STEP_FRESH,   /* no connection: to be scheduled, perhaps */
	STEP_NEW,     /* scheduled: a connection is to be made */
};

struct way {
	struct bpf_redir_neigh next;
	__u32 ifindex;
	__u32 mtu;
};

enum routed { ROUTED, ROUTED_TOO_BIG, ROUTED_HERE, ROUTED_NOWHERE };

/* The way to `to`, for packets of `length` bytes. */
INLINE enum routed route(struct __sk_buff *skb, __u8 family, const __be32 *from, const __be32 *to, __u8 tos,
			 __u32 length, struct way *way)
{
	struct bpf_fib_lookup fib = {};
	fib.tot_len = length;
	fib.ifindex = skb->ingress_ifindex ? skb->ingress_ifindex : skb->ifindex;
	if (family == FAMILY_V4) {
		fib.family = AF_INET;
		fib.tos = tos & 0x1c;
		fib.ipv4_src = from[0];
		fib.ipv4_dst = to[0];
	} else {
		fib.family = AF_INET6;
		__builtin_memcpy(fib.ipv6_src, from, 16);
		__builtin_memcpy(fib.ipv6_dst, to, 16);
	}
	long result = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	if (result == BPF_FIB_LKUP_RET_FRAG_NEEDED) {
		way->mtu = fib.mtu_result;
		return ROUTED_TOO_BIG;
	}
	/* The kernel says so of addresses that are its own, among others. */
	if (result == BPF_FIB_LKUP_RET_NOT_FWDED)
		return ROUTED_HERE;
	if (result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH)
		return ROUTED_NOWHERE;
	/* The address is now that of the gateway, where there is one. */
	way->ifindex = fib.ifindex;
	way->next.nh_family = fib.family;
	__builtin_memcpy(way->next.ipv6_nh, fib.ipv6_dst, 16);
	return ROUTED;
}

INLINE int leave(struct way *way)
{
	return bpf_redirect_neigh(way->ifindex, &way->next, sizeof(way->next), 0);
}

/* --- tunnels ------------------------------------------------------------------------------------------- */

INLINE __u32 tunnel_len(const struct server *server)
{
	return server->family == FAMILY_V4 ? sizeof(struct ip4) : sizeof(struct ip6);
}

/* As headers say it: see big. */
INLINE __be16 said_length(__u32 length)
{
	return length > 65535 ? 0 : be16(length);
}

/* IP in IP (RFC 2003, RFC 2473): the packet becomes the payload of another. Time to live, traffic class and DF are those of
 * the packet inside. Packets of many in one stay so: their segments were found to fit before. */
INLINE int encapsulate(struct __sk_buff *skb, const struct packet *p, const struct server *server, __u8 ttl)
{
	__u8 inside = p->family == FAMILY_V4 ? PROTOCOL_IPIP : PROTOCOL_IP6;
	int own = server->source[0] || server->source[1] || server->source[2] || server->source[3];
	if (server->family == FAMILY_V4) {
		struct ip4 ip = {.version_words = 0x45, .tos = p->tos, .ttl = ttl, .protocol = inside};
		ip.length = said_length(p->length + sizeof(ip));
		ip.fragment = p->kind & PACKET_WHOLE ? be16(0x4000) : 0;
		ip.id = bpf_get_prandom_u32();
		ip.source = own || p->family != FAMILY_V4 ? server->source[0] : p->destination[0];
		ip.destination = server->address[0];
		const __u32 *word = (const __u32 *)&ip;
		ip.sum = ~fold((__u64)word[0] + word[1] + word[2] + word[3] + word[4]);
		if (bpf_skb_adjust_room(skb, sizeof(ip), BPF_ADJ_ROOM_MAC,
					BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4))
			return -1;
		return bpf_skb_store_bytes(skb, p->l3, &ip, sizeof(ip), 0);
	}
	struct ip6 ip = {.next = inside, .hops = ttl};
	ip.version_class_flow = be32(6U << 28 | (__u32)p->tos << 20);
	ip.length = said_length(p->length);
	if (own || p->family != FAMILY_V6)
		__builtin_memcpy(ip.source, server->source, 16);
	else
		__builtin_memcpy(ip.source, p->destination, 16);
	__builtin_memcpy(ip.destination, server->address, 16);
	if (bpf_skb_adjust_room(skb, sizeof(ip), BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6))
		return -1;
	return bpf_skb_store_bytes(skb, p->l3, &ip, sizeof(ip), 0);
}

/* --- sending ------------------------------------------------------------------------------------------- */

INLINE enum step sent(struct plan *plan, int verdict)
{
	plan->verdict = verdict;
	return STEP_PASS;
}

/* Rewritten and handed to the host's stack. */
INLINE enum step hand_up(struct __sk_buff *skb, const struct packet *p, struct plan *plan, const struct ends *to)
{
	return translate(skb, p, to, 0) ? STEP_SHOT : sent(plan, TC_ACT_UNSPEC);
}

#define LOOPBACK 1 /* the interface's number in every network namespace */

/* A reply to a client on this very machine: in by lo, where the client's packets came out. */
INLINE enum step hand_home(struct __sk_buff *skb, const struct packet *p, struct plan *plan, const struct ends *to)
{
	__u8 nobody[12] = {};
	if (translate(skb, p, to, 0) || bpf_skb_store_bytes(skb, 0, nobody, sizeof(nobody), 0))
		return STEP_SHOT;
	return sent(plan, bpf_redirect(LOOPBACK, BPF_F_INGRESS));
}

/* Rewritten and sent on: to the server (nat), to the client, or a flow. `home`: the destination may be here. */
INLINE enum step send_nat(struct __sk_buff *skb, const struct packet *p, struct plan *plan, const struct ends *to,
			  int stack, int home)
{
	if (stack)
		return hand_up(skb, p, plan, to);
	if (p->ttl <= 1)
		return STEP_TTL;
	struct way way = {};
	switch (route(skb, p->family, to->source, to->destination, p->tos, p->segment, &way)) {
	case ROUTED:
		break;
	case ROUTED_TOO_BIG:
		/* Where it is allowed the stack cuts it up (RFC 791 §2.3). */
		if (!(p->kind & PACKET_WHOLE))
			return hand_up(skb, p, plan, to);
		plan->mtu = way.mtu;
		return STEP_TOO_BIG;
	case ROUTED_HERE:
		if (home)
			return hand_home(skb, p, plan, to);
		/* fall through */
	default:
		count(COUNTER_NO_ROUTE);
		return STEP_SHOT;
	}
	return translate(skb, p, to, 1) ? STEP_SHOT : sent(plan, leave(&way));
}

/* The client's packet to the server as it is (dr), or in a tunnel. What does not fit is answered even if it could be cut up (no
 * DF): this program cannot cut, and the host's stack would take dr's packet as its own, and a tunnel's for a forged one, since
 * it comes in by the wire from an address of this host. A sender that does path MTU discovery in any form cuts it up next time. */
INLINE enum step send_as_is(struct __sk_buff *skb, const struct packet *p, struct plan *plan, const struct server *server)
{
	int tunnel = (plan->flags & CONN_METHOD) == METHOD_TUN;
	__u32 more = tunnel ? tunnel_len(server) : 0;
	struct way way = {};
	if (server->flags & SERVER_LOCAL)
		return sent(plan, TC_ACT_UNSPEC);
	if (p->ttl <= 1)
		return STEP_TTL;
	/* A tunnel begins here, and not where the client is. */
	switch (route(skb, server->family, tunnel ? server->source : p->source, server->address, p->tos,
		      p->segment + more, &way)) {
	case ROUTED:
		break;
	case ROUTED_TOO_BIG:
		plan->mtu = way.mtu - more;
		return STEP_TOO_BIG;
	default:
		count(COUNTER_NO_ROUTE);
		return STEP_SHOT;
	}
	if (rewrite_hops(skb, p) || (tunnel && encapsulate(skb, p, server, p->ttl - 1)))
		return STEP_SHOT;
	return sent(plan, leave(&way));
}

/* The client's packet, to the server. */
GLOBAL int send_in(struct __sk_buff *skb, const struct packet *p, struct plan *plan)
{
	if (!p || !plan)
		return STEP_SHOT;
	const struct server *server = server_of(plan->server);
	if (!server)
		return STEP_SHOT;
	if ((plan->flags & CONN_METHOD) != METHOD_NAT)
		return send_as_is(skb, p, plan, server);
	struct ends to;
	ends_of(&to, p);
	__builtin_memcpy(to.destination, server->address, 16);
	to.destination_port = plan->port;
	return send_nat(skb, p, plan, &to, server->flags & SERVER_LOCAL || plan->flags & CONN_STACK, 0);
}

/* As what a server's packet leaves: from the virtual address. */
INLINE void ends_out(struct ends *to, const struct packet *p, const struct plan *plan)
{
	ends_of(to, p);
	__builtin_memcpy(to->source, plan->address, 16);
	to->source_port = plan->port;
}

/* The server's packet, to the client. */
GLOBAL int send_out(struct __sk_buff *skb, const struct packet *p, struct plan *plan)
{
	if (!p || !plan)
		return STEP_SHOT;
	struct ends to;
	ends_out(&to, p, plan);
	return send_nat(skb, p, plan, &to, plan->flags & CONN_STACK, 1);
}

/* The same at egress, where it is on its way already: 0 when it was rewritten. */
GLOBAL int rewrite_out(struct __sk_buff *skb, const struct packet *p, const struct plan *plan)
{
	if (!p || !plan)
		return -1;
	struct ends to;
	ends_out(&to, p, plan);
	return translate(skb, p, &to, 0);
}

#endif
