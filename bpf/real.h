/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * On a real server: opens the director's tunnels, and keeps what the server offers to receive short enough for them.
 */
#ifndef REEVE_REAL_H
#define REEVE_REAL_H

#include "kernel.h"
#include "maps.h"
#include "parse.h"
#include "rewrite.h"
#include "verdict.h"

INLINE const struct real_server *real_now(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&real_server, &zero);
}

/* Since Linux 6.3 a program says so when a packet of one family comes out of one of the other. */
#define DECAP_TO_V4 (1ULL << 7)
#define DECAP_TO_V6 (1ULL << 8)

/* Takes the outer header off (RFC 2003, RFC 2473): the packet goes on as if it had come by itself. */
SECTION("classifier") int real_in(struct __sk_buff *skb)
{
	struct packet p = {};
	const struct real_server *real = real_now();
	if (!real || skb->pkt_type != 0)
		return TC_ACT_UNSPEC;
	if (parse(skb, &p) != PARSED_OTHER || p.kind & PACKET_FIRST)
		return TC_ACT_UNSPEC;
	if (p.protocol != PROTOCOL_IPIP && p.protocol != PROTOCOL_IP6)
		return TC_ACT_UNSPEC;
	if (!(real->flags & REAL_ANY_DIRECTOR)) {
		struct director_key key = {.family = p.family};
		__builtin_memcpy(key.address, p.source, 16);
		if (!bpf_map_lookup_elem(&directors, &key))
			return TC_ACT_UNSPEC;
	}
	__u8 first;
	__u32 least = p.protocol == PROTOCOL_IPIP ? sizeof(struct ip4) : sizeof(struct ip6);
	__u8 version = p.protocol == PROTOCOL_IPIP ? 4 : 6;
	if (p.l4 + least > p.l3 + p.length || bpf_skb_load_bytes(skb, p.l4, &first, 1) || first >> 4 != version) {
		count(COUNTER_MALFORMED);
		return TC_ACT_SHOT;
	}
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;
	if (version != p.family)
		flags |= version == 4 ? DECAP_TO_V4 : DECAP_TO_V6;
	if (bpf_skb_adjust_room(skb, -(__s32)(p.l4 - p.l3), BPF_ADJ_ROOM_MAC, flags))
		return TC_ACT_SHOT;
	count(COUNTER_DECAPSULATED);
	return TC_ACT_UNSPEC;
}

#define OPTION_END 0
#define OPTION_NOTHING 1
#define OPTION_MSS 2
#define MAX_OPTIONS 12

/* A SYN-ACK never passes the director, which therefore cannot lower its MSS (RFC 9293 §3.7.1) as tunnels need. */
SECTION("classifier") int real_out(struct __sk_buff *skb)
{
	struct packet p = {};
	const struct real_server *real = real_now();
	if (!real || parse(skb, &p) != PARSED_FLOW || p.protocol != PROTOCOL_TCP ||
	    (p.flags & (TCP_SYN | TCP_ACK)) != (TCP_SYN | TCP_ACK))
		return TC_ACT_UNSPEC;
	__u32 most = p.family == FAMILY_V4 ? real->mss4 : real->mss6;
	struct tcp_head tcp;
	if (!most || bpf_skb_load_bytes(skb, p.l4, &tcp, sizeof(tcp)))
		return TC_ACT_UNSPEC;
	__u32 at = p.l4 + 20, end = p.l4 + (tcp.words >> 4) * 4;
	for (int i = 0; i < MAX_OPTIONS && at + 4 <= end; i++) {
		struct {
			__u8 kind;
			__u8 len;
			__be16 value;
		} option;
		if (bpf_skb_load_bytes(skb, at, &option, sizeof(option)) || option.kind == OPTION_END)
			break;
		if (option.kind == OPTION_NOTHING) {
			at++;
			continue;
		}
		if (option.kind == OPTION_MSS && option.len == 4) {
			__be16 lower = be16(most);
			if (be16(option.value) <= most)
				break;
			/* The value may begin at an odd byte, and its sum is then turned round (RFC 1071 §2 (B)). */
			int odd = (at + 2 - p.l4) & 1;
			__be16 from = odd ? be16(option.value) : option.value, to = odd ? be16(lower) : lower;
			if (bpf_l4_csum_replace(skb, sum_at(&p), from, to, 2) ||
			    bpf_skb_store_bytes(skb, at + 2, &lower, 2, 0))
				return TC_ACT_SHOT;
			count(COUNTER_CLAMPED);
			break;
		}
		if (option.len < 2)
			break;
		at += option.len;
	}
	return TC_ACT_UNSPEC;
}

#endif
