/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only */
#include "maps.h"

#define TC_ACT_OK 0

SECTION("classifier") int director_in(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct configuration *config = bpf_map_lookup_elem(&configuration, &zero);
	void *keep[] = {&services, &service_state, &servers, &loads, &statistics, &slots, &conn4, &conn6, &back4,
			&back6, &templates, &controls, &answers, &flows, &counters, &real_server, &directors};
	asm volatile("" : : "r"(keep[0]));
	return config ? TC_ACT_OK : TC_ACT_OK;
}

const char licence[] SECTION("license") = "Dual MIT/GPL";
