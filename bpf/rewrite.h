/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * Changes addresses, ports, hop counts, and every checksum that covers them, by difference (RFC 1624): the
 * payload is not read, and a checksum that is still to be finished by a card stays so.
 */
#ifndef REEVE_REWRITE_H
#define REEVE_REWRITE_H

#include "kernel.h"
#include "parse.h"

/* What a packet leaves with. */
struct ends {
	__be32 source[4];
	__be32 destination[4];
	__be16 source_port;
	__be16 destination_port;
};

INLINE void ends_of(struct ends *to, const struct packet *p)
{
	__builtin_memcpy(to->source, p->source, 16);
	__builtin_memcpy(to->destination, p->destination, 16);
	to->source_port = p->source_port;
	to->destination_port = p->destination_port;
}

/* RFC 1624 §3: the sum of a header after the 16 bits or more of `from` became those of `to`. */
INLINE __be16 sum_replace(__be16 sum, __u32 from, __u32 to)
{
	__u64 total = (__u16)~sum;
	total += ~from & 0xffffffffULL;
	total += to;
	return ~fold(total);
}

/* Where the transport has its checksum, from the beginning of the packet. */
INLINE __u32 sum_at(const struct packet *p)
{
	return p->l4 + (p->protocol == PROTOCOL_TCP ? TCP_SUM : p->protocol == PROTOCOL_UDP ? UDP_SUM : ICMP_SUM);
}

/* UDP over IPv4 may have none (0), and 0 is never a result. */
INLINE __u64 sum_flags(const struct packet *p)
{
	return p->protocol == PROTOCOL_UDP ? BPF_F_MARK_MANGLED_0 : 0;
}

/* An address in the pseudo header. */
INLINE int pseudo_replace(struct __sk_buff *skb, const struct packet *p, const __be32 *from, const __be32 *to)
{
	if (p->family == FAMILY_V4)
		return from[0] == to[0] ? 0
					: bpf_l4_csum_replace(skb, sum_at(p), from[0], to[0],
							      BPF_F_PSEUDO_HDR | sum_flags(p) | 4);
	__s64 diff = bpf_csum_diff(from, 16, to, 16, 0);
	return diff < 0 ? -1 : bpf_l4_csum_replace(skb, sum_at(p), 0, diff, BPF_F_PSEUDO_HDR | sum_flags(p));
}

INLINE int port_replace(struct __sk_buff *skb, const struct packet *p, __u32 at, __be16 from, __be16 to)
{
	if (from == to)
		return 0;
	if (bpf_l4_csum_replace(skb, sum_at(p), from, to, sum_flags(p) | 2))
		return -1;
	return bpf_skb_store_bytes(skb, p->l4 + at, &to, 2, 0);
}

/* The transport's half. A later fragment has none, and ICMP (for IPv4) no pseudo header. */
INLINE int rewrite_l4(struct __sk_buff *skb, const struct packet *p, const struct ends *to)
{
	if (p->kind & PACKET_LATER || p->protocol == PROTOCOL_ICMP)
		return 0;
	return pseudo_replace(skb, p, p->source, to->source) || pseudo_replace(skb, p, p->destination, to->destination) ||
	       port_replace(skb, p, 0, p->source_port, to->source_port) ||
	       port_replace(skb, p, 2, p->destination_port, to->destination_port);
}

/* The IP header's half: addresses, and `hops` off the time to live. `p` is the packet as it came. */
INLINE int rewrite_l3(struct __sk_buff *skb, const struct packet *p, const struct ends *to, __u8 hops)
{
	if (p->family == FAMILY_V4) {
		/* From the time to live on; RFC 791 §3.1. */
		struct {
			__u8 ttl;
			__u8 protocol;
			__be16 sum;
			__be32 source;
			__be32 destination;
		} tail = {p->ttl - hops, p->protocol, p->sum, to->source[0], to->destination[0]};
		/* The time to live is the first of two bytes. */
		tail.sum = sum_replace(tail.sum, p->ttl, tail.ttl);
		tail.sum = sum_replace(tail.sum, p->source[0], tail.source);
		tail.sum = sum_replace(tail.sum, p->destination[0], tail.destination);
		return bpf_skb_store_bytes(skb, p->l3 + 8, &tail, sizeof(tail), 0);
	}
	/* There is no checksum of this header, so that a card's sum over the packet changes with it. */
	struct {
		__be32 source[4];
		__be32 destination[4];
	} tail;
	__u8 ttl = p->ttl - hops;
	__builtin_memcpy(tail.source, to->source, 16);
	__builtin_memcpy(tail.destination, to->destination, 16);
	if (bpf_skb_store_bytes(skb, p->l3 + 7, &ttl, 1, BPF_F_RECOMPUTE_CSUM))
		return -1;
	return bpf_skb_store_bytes(skb, p->l3 + 8, &tail, sizeof(tail), BPF_F_RECOMPUTE_CSUM);
}

/* 0 when it is done. */
GLOBAL int translate(struct __sk_buff *skb, const struct packet *p, const struct ends *to, __u32 hops)
{
	if (!p || !to)
		return -1;
	return rewrite_l4(skb, p, to) || rewrite_l3(skb, p, to, hops);
}

/* dr, tun: only the time to live. */
INLINE int rewrite_hops(struct __sk_buff *skb, const struct packet *p)
{
	if (p->family == FAMILY_V6) {
		__u8 ttl = p->ttl - 1;
		return bpf_skb_store_bytes(skb, p->l3 + 7, &ttl, 1, BPF_F_RECOMPUTE_CSUM);
	}
	struct {
		__u8 ttl;
		__u8 protocol;
		__be16 sum;
	} part = {p->ttl - 1, p->protocol, sum_replace(p->sum, p->ttl, p->ttl - 1)};
	return bpf_skb_store_bytes(skb, p->l3 + 8, &part, sizeof(part), 0);
}

#endif
