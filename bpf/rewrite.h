/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * Changes addresses, ports, hop counts, and every checksum that covers them, by difference (RFC 1624): the
 * payload is not read, and a checksum that is still to be finished by a card stays so.
 */
#ifndef REEVE_REWRITE_H
#define REEVE_REWRITE_H

#include "kernel.h"
#include "parse.h"

enum side { SIDE_SOURCE, SIDE_DESTINATION };

/* RFC 1624 §3: the sum of a header after the 16 bits or more of `from` became those of `to`. */
INLINE __be16 sum_replace(__be16 sum, __u32 from, __u32 to)
{
	__u64 total = (__u16)~sum;
	total += ~from & 0xffffffffULL;
	total += to;
	return ~fold(total);
}

/* Where TCP and UDP have their checksum, from the beginning of the packet. */
INLINE __u32 sum_at(const struct packet *p)
{
	return p->l4 + (p->protocol == PROTOCOL_TCP ? TCP_SUM : UDP_SUM);
}

/* UDP over IPv4 may have none (0), and 0 is never a result. */
INLINE __u64 sum_flags(const struct packet *p)
{
	return p->protocol == PROTOCOL_UDP ? BPF_F_MARK_MANGLED_0 : 0;
}

/* The transport's half: address in the pseudo header, port, checksum. Not for later fragments. */
INLINE int rewrite_l4(struct __sk_buff *skb, const struct packet *p, enum side side, const __be32 *address, __be16 port)
{
	const __be32 *old = side == SIDE_SOURCE ? p->source : p->destination;
	__be16 old_port = side == SIDE_SOURCE ? p->source_port : p->destination_port;
	__u64 flags = sum_flags(p);
	if (p->family == FAMILY_V4) {
		if (old[0] != address[0] &&
		    bpf_l4_csum_replace(skb, sum_at(p), old[0], address[0], BPF_F_PSEUDO_HDR | flags | 4))
			return -1;
	} else {
		__s64 diff = bpf_csum_diff(old, 16, address, 16, 0);
		if (diff < 0 || bpf_l4_csum_replace(skb, sum_at(p), 0, diff, BPF_F_PSEUDO_HDR | flags))
			return -1;
	}
	if (port == old_port)
		return 0;
	if (bpf_l4_csum_replace(skb, sum_at(p), old_port, port, flags | 2))
		return -1;
	return bpf_skb_store_bytes(skb, p->l4 + (side == SIDE_SOURCE ? 0 : 2), &port, 2, 0);
}

/* The IP header's half: an address, and `hops` off the time to live. Both keep the packet's own numbers (`p`) as they were. */
INLINE int rewrite_l3(struct __sk_buff *skb, const struct packet *p, enum side side, const __be32 *address, __u8 hops)
{
	if (p->family == FAMILY_V4) {
		/* From the time to live on; RFC 791 §3.1. */
		struct {
			__u8 ttl;
			__u8 protocol;
			__be16 sum;
			__be32 source;
			__be32 destination;
		} tail = {p->ttl - hops, p->protocol, p->sum, p->source[0], p->destination[0]};
		/* The time to live is the first of two bytes. */
		tail.sum = sum_replace(tail.sum, p->ttl, tail.ttl);
		if (side == SIDE_SOURCE) {
			tail.sum = sum_replace(tail.sum, tail.source, address[0]);
			tail.source = address[0];
		} else {
			tail.sum = sum_replace(tail.sum, tail.destination, address[0]);
			tail.destination = address[0];
		}
		return bpf_skb_store_bytes(skb, p->l3 + 8, &tail, sizeof(tail), 0);
	}
	/* There is no checksum of this header, so that a card's sum over the packet changes with it. */
	__u8 ttl = p->ttl - hops;
	if (bpf_skb_store_bytes(skb, p->l3 + 7, &ttl, 1, BPF_F_RECOMPUTE_CSUM))
		return -1;
	return bpf_skb_store_bytes(skb, p->l3 + (side == SIDE_SOURCE ? 8 : 24), address, 16, BPF_F_RECOMPUTE_CSUM);
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
