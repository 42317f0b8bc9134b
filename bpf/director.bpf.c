/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * The director's half in the kernel: IPVS's forwarding at tc, before the host's own stack. docs/life-of-a-packet.md tells
 * a packet's way through these files.
 */
#include "kernel.h"

#include "abi.h"
#include "maps.h"

#include "parse.h"
#include "tcp.h"

#include "choose.h"
#include "conn.h"

#include "rewrite.h"
#include "verdict.h"

#include "icmp.h"
#include "serve.h"
#include "reap.h"

#include "layouts.h"

#define PACKET_HOST 0

/* From the wire, or from the host itself where the interface is lo. */
SECTION("classifier") int director_in(struct __sk_buff *skb)
{
	struct packet p = {};
	struct plan plan = {};
	const struct configuration *config = config_now();
	/* What is for another machine only passes by (a bridge, a listening tool). */
	if (!config || config->flags & CONFIG_BACKUP_ONLY || skb->pkt_type != PACKET_HOST)
		return TC_ACT_OK;
	int step = STEP_PASS;
	plan.now = now_tick();
	plan.verdict = TC_ACT_OK;
	switch (parse(skb, &p)) {
	case PARSED_BAD:
		count(COUNTER_MALFORMED);
		return TC_ACT_OK;
	case PARSED_FLOW:
		step = known(&p, &plan);
		if (step == STEP_FRESH)
			step = fresh(&p, &plan, skb->mark);
		break;
	default:
		return TC_ACT_OK;
	}
	if (step == STEP_IN)
		step = send_in(skb, &p, &plan, 0);
	else if (step == STEP_OUT)
		step = send_out(skb, &p, &plan, 0);
	switch (step) {
	case STEP_PASS:
		return plan.verdict;
	case STEP_NOBODY:
		count(COUNTER_NO_SERVER);
		return answer(skb, &p, &plan, step);
	case STEP_TOO_BIG:
		count(COUNTER_TOO_BIG);
		return answer(skb, &p, &plan, step);
	case STEP_TTL:
		count(COUNTER_TTL);
		return answer(skb, &p, &plan, step);
	}
	return TC_ACT_SHOT;
}

const char licence[] SECTION("license") = "Dual MIT/GPL";
