/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * Answers to senders: no server, too big, out of hops. RFC 792, RFC 1191, RFC 4443. The packet itself is cut and
 * gets new headers in front, and goes back where it came from.
 */
#ifndef REEVE_ICMP_H
#define REEVE_ICMP_H

#include "conn.h"
#include "kernel.h"
#include "parse.h"
#include "rewrite.h"
#include "verdict.h"

/* Of the packet, an answer quotes at most this: the longest headers that we read, and more than the 8 bytes behind
 * them that RFC 792 asks for. */
#define QUOTE 128

#define MIN_MTU_V4 68   /* RFC 791 §3.2 */
#define MIN_MTU_V6 1280 /* RFC 8200 §5 */

INLINE struct icmp_head answer_head(__u8 family, enum step why, __u32 mtu)
{
	struct icmp_head head = {};
	if (family == FAMILY_V4) {
		switch (why) {
		case STEP_TOO_BIG:
			head.type = 3, head.code = 4;
			head.word = be32(mtu & 0xffff);
			break;
		case STEP_TTL:
			head.type = 11;
			break;
		default:
			head.type = 3, head.code = 3;
		}
		return head;
	}
	switch (why) {
	case STEP_TOO_BIG:
		head.type = 2;
		head.word = be32(mtu < MIN_MTU_V6 ? MIN_MTU_V6 : mtu);
		break;
	case STEP_TTL:
		head.type = 3;
		break;
	default:
		head.type = 1, head.code = 4;
	}
	return head;
}

INLINE __u32 answer_front(__u8 family)
{
	return sizeof(struct icmp_head) + (family == FAMILY_V4 ? sizeof(struct ip4) : sizeof(struct ip6));
}

/* The quote's own transport checksum. A card or the stack may still be due to fill it in (CHECKSUM_PARTIAL, and nothing
 * tells a program so): it would then write ~(rest + what is there) and break the sum of the message around it. The value
 * that stays the same when that is done, ~(rest + F) = F, is F = -rest / 2 in one's complement; 2 has the inverse 2^15
 * modulo 2^16 - 1. Nobody checks the checksum of a quote, which is a part of a packet. */
INLINE __be16 still_sum(__u16 rest)
{
	return ((__u32)(__u16)~rest << 15) % 0xffff;
}

/* Writes the answer's headers in front of what it quotes: there is room for them at p->l3, and `p` is the quoted packet as if it
 * stood there, p->length bytes of it. The answer comes from where that packet went. 0 when it is done. */
GLOBAL int finish(struct __sk_buff *skb, const struct packet *p, const struct plan *plan, int why)
{
	__u8 quote[QUOTE];
	if (!p || !plan)
		return -1;
	__u8 family = p->family;
	struct icmp_head icmp = answer_head(family, why, plan->mtu);
	__u32 l3 = p->l3, len = p->length, before = p->l4 - p->l3;
	__u32 front = answer_front(family), at = l3 + front;
	OPAQUE(len);
	if (len < 28 || len > QUOTE)
		return -1;

	/* The quote's sum, with the transport's checksum made stable. */
	__u32 sum_offset = before + (p->protocol == PROTOCOL_TCP ? TCP_SUM : UDP_SUM);
	__be16 none = 0;
	int transport = (p->protocol == PROTOCOL_TCP || p->protocol == PROTOCOL_UDP) && !(p->kind & PACKET_LATER) &&
			sum_offset + 2 <= len;
	if (transport && bpf_skb_store_bytes(skb, at + sum_offset, &none, 2, 0))
		return -1;
	__builtin_memset(quote, 0, sizeof(quote));
	if (bpf_skb_load_bytes(skb, at, quote, len))
		return -1;
	__u64 sum = bpf_csum_diff(0, 0, (const __be32 *)quote, sizeof(quote), 0);
	if (transport) {
		/* Only what follows the quoted header: of IPv4 that sums up to 0 by itself. */
		__u16 rest = fold(sum);
		if (family == FAMILY_V6) {
			__builtin_memset(quote, 0, sizeof(quote));
			OPAQUE(before);
			if (before < 40 || before > QUOTE - 8 || bpf_skb_load_bytes(skb, at, quote, before))
				return -1;
			__u64 header = bpf_csum_diff(0, 0, (const __be32 *)quote, sizeof(quote), 0);
			rest = fold((__u64)rest + (__u16)~fold(header));
		}
		__be16 still = still_sum(rest);
		if (bpf_skb_store_bytes(skb, at + sum_offset, &still, 2, 0))
			return -1;
		sum += still;
	}
	const __u32 *word = (const __u32 *)&icmp;
	sum = (sum & 0xffffffff) + (sum >> 32) + word[0] + word[1];

	if (family == FAMILY_V4) {
		struct ip4 ip = {.version_words = 0x45, .tos = 0xc0, .ttl = 64, .protocol = PROTOCOL_ICMP};
		ip.length = be16(front + len);
		ip.source = p->destination[0];
		ip.destination = p->source[0];
		const __u32 *head = (const __u32 *)&ip;
		ip.sum = ~fold((__u64)head[0] + head[1] + head[2] + head[3] + head[4]);
		if (bpf_skb_store_bytes(skb, l3, &ip, sizeof(ip), 0))
			return -1;
	} else {
		struct ip6 ip = {.version_class_flow = be32(6U << 28), .next = PROTOCOL_ICMP6, .hops = 64};
		ip.length = be16(sizeof(icmp) + len);
		__builtin_memcpy(ip.source, p->destination, 16);
		__builtin_memcpy(ip.destination, p->source, 16);
		/* RFC 4443 §2.3, RFC 8200 §8.1: with a pseudo header. */
		for (int i = 0; i < 4; i++)
			sum += (__u64)ip.source[i] + ip.destination[i];
		sum += be32(sizeof(icmp) + len) + be32(PROTOCOL_ICMP6);
		if (bpf_skb_store_bytes(skb, l3, &ip, sizeof(ip), 0))
			return -1;
	}
	icmp.sum = ~fold(sum);
	return bpf_skb_store_bytes(skb, at - sizeof(icmp), &icmp, sizeof(icmp), 0);
}

/* RFC 1812 §4.3.2.7, RFC 4443 §2.4 (e): not about an error, nor a later fragment, nor to what is nobody's own address. */
INLINE int answerable(const struct packet *p)
{
	if (p->kind & PACKET_LATER || (p->protocol != PROTOCOL_TCP && p->protocol != PROTOCOL_UDP))
		return 0;
	if (p->family == FAMILY_V4)
		return p->source[0] && be32(p->source[0]) < 0xe0000000;
	return be32(p->source[0]) < 0xff000000 && (p->source[0] || p->source[1] || p->source[2] || p->source[3]);
}

/* RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f): so many and no more. */
INLINE int may_answer(__u32 now)
{
	__u32 zero = 0;
	struct answering *here = bpf_map_lookup_elem(&answering, &zero);
	if (!here)
		return 0;
	__u64 left = here->left + (__u64)(now - here->tick) * ANSWERS_A_TICK;
	if (left > ANSWERS_AT_ONCE)
		left = ANSWERS_AT_ONCE;
	here->tick = now;
	here->left = left ? left - 1 : 0;
	return left > 0;
}

/* How much of a packet is quoted: whole words, so that sums are. */
INLINE __u32 quoted(__u32 len)
{
	return (len > QUOTE ? QUOTE : len) & ~3U;
}

/* Turns the packet into an answer and sends it back to who sent it, by the same interface. The program ends with it: `p` becomes
 * what is quoted. */
GLOBAL int answer(struct __sk_buff *skb, struct packet *p, const struct plan *plan, int why)
{
	if (!p || !plan)
		return TC_ACT_SHOT;
	if (!answerable(p) || !may_answer(plan->now)) {
		count(COUNTER_UNANSWERED);
		return TC_ACT_SHOT;
	}
	__u32 len = quoted(p->length);
	if (p->l4 - p->l3 + 8U > len || bpf_skb_change_tail(skb, p->l3 + len, 0) ||
	    bpf_skb_adjust_room(skb, answer_front(p->family), BPF_ADJ_ROOM_MAC, 0))
		return TC_ACT_SHOT;
	p->length = len;
	struct {
		__u8 to[6];
		__u8 from[6];
	} link, back;
	if (finish(skb, p, plan, why) || bpf_skb_load_bytes(skb, 0, &link, sizeof(link)))
		return TC_ACT_SHOT;
	__builtin_memcpy(back.to, link.from, 6);
	__builtin_memcpy(back.from, link.to, 6);
	if (bpf_skb_store_bytes(skb, 0, &back, sizeof(back), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}

#endif
