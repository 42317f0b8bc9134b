/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * A packet's headers, read once and judged. The host's stack has not seen the packet yet, so that what it would
 * refuse is refused here: a packet that contradicts itself is BAD, and left to the stack.
 */
#ifndef REEVE_PARSE_H
#define REEVE_PARSE_H

#include "kernel.h"
#include "maps.h"

#define ETHERNET_LEN 14
#define ETHERNET_IP4 0x0800
#define ETHERNET_IP6 0x86dd

#define PROTOCOL_ICMP 1
#define PROTOCOL_IPIP 4
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_IP6 41
#define PROTOCOL_ICMP6 58

/* RFC 791 §3.1 */
struct ip4 {
	__u8 version_words;
	__u8 tos;
	__be16 length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 sum;
	__be32 source;
	__be32 destination;
};

/* RFC 8200 §3 */
struct ip6 {
	__be32 version_class_flow;
	__be16 length;
	__u8 next;
	__u8 hops;
	__be32 source[4];
	__be32 destination[4];
};

/* RFC 9293 §3.1, up to the flags. */
struct tcp_head {
	__be16 source_port;
	__be16 destination_port;
	__be32 sequence;
	__be32 acknowledgement;
	__u8 words; /* upper half */
	__u8 flags;
};

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define TCP_SUM 16 /* offset of the checksum */
#define UDP_SUM 6
#define ICMP_SUM 2

/* RFC 768 */
struct udp_head {
	__be16 source_port;
	__be16 destination_port;
	__be16 length;
	__be16 sum;
};

/* RFC 792, RFC 4443 §2.1 */
struct icmp_head {
	__u8 type;
	__u8 code;
	__be16 sum;
	__be32 word; /* MTU, pointer, or unused */
};

struct packet {
	__be32 source[4];
	__be32 destination[4];
	__be16 source_port;
	__be16 destination_port;
	__u8 family; /* FAMILY_* */
	__u8 protocol;
	__u8 flags; /* of TCP */
	__u8 ttl;
	__u16 l3; /* offset of the IP header */
	__u16 l4;
	__u32 length; /* of the IP packet */
	__u32 segment; /* of the longest IP packet that it will be on the wire */
	__u32 id; /* of its fragments */
	__u16 kind; /* PACKET_* */
	__be16 sum; /* of the IPv4 header */
	__u8 tos;
	__u8 icmp; /* type */
	__u16 zero;
};

#define PACKET_FIRST (1U << 0) /* the first fragment of several */
#define PACKET_WHOLE (1U << 1) /* must not be fragmented (DF, or IPv6) */
#define PACKET_LATER (1U << 2) /* a later fragment: there is no transport header */

enum parsed {
	PARSED_OTHER, /* nothing that we look at */
	PARSED_BAD,
	PARSED_FLOW,  /* TCP or UDP with ports */
	PARSED_LATER, /* a later fragment: no ports */
	PARSED_ERROR, /* an ICMP error */
};

INLINE __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* The one's complement sum of an IPv4 header must be all ones (RFC 1071). A router has to check (RFC 1812
 * §5.2.2), and nobody after us will. */
INLINE int sum4_good(struct __sk_buff *skb, __u32 l3, const struct ip4 *ip, __u32 header)
{
	const __u32 *word = (const __u32 *)ip;
	__u64 sum = (__u64)word[0] + word[1] + word[2] + word[3] + word[4];
	for (__u32 at = 20; at < 60 && at < header; at += 4) {
		__u32 option;
		if (bpf_skb_load_bytes(skb, l3 + at, &option, 4))
			return 0;
		sum += option;
	}
	return fold(sum) == 0xffff;
}

/* Many packets in one may be longer than its header can say; the length in it is then 0. */
INLINE int big(const struct __sk_buff *skb, __be16 length)
{
	return !length && skb->gso_size;
}

/* Is it an error, which carries the packet that it is about? RFC 792; RFC 4443 §2.1: types below 128. */
INLINE int icmp_is_error(__u8 family, __u8 type)
{
	if (family == FAMILY_V6)
		return type >= 1 && type <= 4;
	return type == 3 || type == 4 || type == 11 || type == 12;
}

/* What follows the IP header, which ends at p->l4; `end` is where the packet does. */
INLINE enum parsed parse_l4(struct __sk_buff *skb, struct packet *p, __u32 end)
{
	__u32 header;
	if (p->protocol == PROTOCOL_TCP) {
		struct tcp_head tcp;
		if (p->l4 + 20 > end || bpf_skb_load_bytes(skb, p->l4, &tcp, sizeof(tcp)))
			return PARSED_BAD;
		header = (tcp.words >> 4) * 4;
		if (header < 20 || p->l4 + header > end)
			return PARSED_BAD;
		p->source_port = tcp.source_port;
		p->destination_port = tcp.destination_port;
		p->flags = tcp.flags;
	} else if (p->protocol == PROTOCOL_UDP) {
		struct udp_head udp;
		if (p->l4 + 8 > end || bpf_skb_load_bytes(skb, p->l4, &udp, sizeof(udp)))
			return PARSED_BAD;
		header = 8;
		__u32 length = be16(udp.length);
		if (length < 8 || (!(p->kind & PACKET_FIRST) && p->l4 + length > end))
			return PARSED_BAD;
		p->source_port = udp.source_port;
		p->destination_port = udp.destination_port;
	} else if (p->protocol == (p->family == FAMILY_V6 ? PROTOCOL_ICMP6 : PROTOCOL_ICMP)) {
		struct icmp_head icmp;
		if (p->l4 + 8 > end || bpf_skb_load_bytes(skb, p->l4, &icmp, sizeof(icmp)))
			return PARSED_BAD;
		p->icmp = icmp.type;
		/* A fragmented error quotes too much to be of use. */
		return icmp_is_error(p->family, icmp.type) && !(p->kind & PACKET_FIRST) ? PARSED_ERROR : PARSED_OTHER;
	} else {
		return PARSED_OTHER;
	}
	/* Many packets in one: what counts is how long each will be. */
	__u32 segment = skb->gso_size;
	p->segment = segment ? p->l4 - p->l3 + header + segment : p->length;
	return PARSED_FLOW;
}

INLINE enum parsed parse4(struct __sk_buff *skb, struct packet *p)
{
	struct ip4 ip;
	if (bpf_skb_load_bytes(skb, p->l3, &ip, sizeof(ip)))
		return PARSED_BAD;
	__u32 header = (ip.version_words & 15) * 4, length = big(skb, ip.length) ? skb->len - p->l3 : be16(ip.length);
	if (ip.version_words >> 4 != 4 || header < 20 || length < header || p->l3 + length > skb->len ||
	    !sum4_good(skb, p->l3, &ip, header))
		return PARSED_BAD;
	p->family = FAMILY_V4;
	p->protocol = ip.protocol;
	p->source[0] = ip.source;
	p->destination[0] = ip.destination;
	p->ttl = ip.ttl;
	p->tos = ip.tos;
	p->sum = ip.sum;
	p->length = p->segment = length;
	p->l4 = p->l3 + header;
	/* RFC 791 §3.1: DF, MF, and an offset in units of 8 bytes. */
	__u16 fragment = be16(ip.fragment);
	p->id = ip.id;
	p->kind = fragment & 0x4000 ? PACKET_WHOLE : 0;
	if (fragment & 0x1fff) {
		p->kind |= PACKET_LATER;
		return PARSED_LATER;
	}
	if (fragment & 0x2000)
		p->kind |= PACKET_FIRST;
	return parse_l4(skb, p, p->l3 + length);
}

/* Extension headers that stand before what we want. RFC 8200 §4. */
#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING 43
#define NEXT_FRAGMENT 44
#define NEXT_DESTINATION 60
#define MAX_EXTENSIONS 6

INLINE enum parsed parse6(struct __sk_buff *skb, struct packet *p)
{
	struct ip6 ip;
	if (bpf_skb_load_bytes(skb, p->l3, &ip, sizeof(ip)))
		return PARSED_BAD;
	__u32 length = big(skb, ip.length) ? skb->len - p->l3 : be16(ip.length) + 40U;
	if ((be32(ip.version_class_flow) >> 28) != 6 || p->l3 + length > skb->len)
		return PARSED_BAD;
	p->family = FAMILY_V6;
	__builtin_memcpy(p->source, ip.source, 16);
	__builtin_memcpy(p->destination, ip.destination, 16);
	p->ttl = ip.hops;
	p->tos = be32(ip.version_class_flow) >> 20;
	p->length = p->segment = length;
	p->kind = PACKET_WHOLE;
	__u32 at = p->l3 + 40, end = p->l3 + length;
	__u8 next = ip.next;
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		if (next != NEXT_HOP_BY_HOP && next != NEXT_ROUTING && next != NEXT_FRAGMENT && next != NEXT_DESTINATION)
			break;
		struct {
			__u8 next;
			__u8 eights; /* beyond the first 8 bytes */
			__be16 fragment;
			__be32 id;
		} head;
		if (at + 8 > end || bpf_skb_load_bytes(skb, at, &head, sizeof(head)))
			return PARSED_BAD;
		if (next == NEXT_FRAGMENT) {
			/* RFC 8200 §4.5 */
			p->id = head.id;
			if (be16(head.fragment) & 0xfff8) {
				p->protocol = head.next;
				p->l4 = at + 8;
				p->kind |= PACKET_LATER;
				return PARSED_LATER;
			}
			if (be16(head.fragment) & 1)
				p->kind |= PACKET_FIRST;
			at += 8;
		} else {
			at += 8 + head.eights * 8;
		}
		next = head.next;
	}
	if (at > end)
		return PARSED_BAD;
	p->protocol = next;
	p->l4 = at;
	return parse_l4(skb, p, end);
}

/* Reads the packet that begins with an Ethernet header into `p`, which is all 0 before. */
GLOBAL int parse(struct __sk_buff *skb, struct packet *p)
{
	if (!p)
		return PARSED_OTHER;
	/* A tag that the card took off belongs to an interface above this one, which has a hook of its own. */
	if (skb->vlan_present)
		return PARSED_OTHER;
	p->l3 = ETHERNET_LEN;
	if (skb->protocol == be16(ETHERNET_IP4))
		return parse4(skb, p);
	if (skb->protocol == be16(ETHERNET_IP6))
		return parse6(skb, p);
	return PARSED_OTHER;
}

#endif
