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

#include "conn.h"
#include "choose.h"

#include "rewrite.h"
#include "verdict.h"

#include "flows.h"
#include "fragments.h"
#include "icmp.h"
#include "persist.h"
#include "quoted.h"
#include "serve.h"
#include "real.h"
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
		return TC_ACT_UNSPEC;
	int step = STEP_PASS;
	plan.now = now_tick();
	plan.mark = skb->mark;
	plan.verdict = TC_ACT_UNSPEC;
	switch (parse(skb, &p)) {
	case PARSED_BAD:
		count(COUNTER_MALFORMED);
		return TC_ACT_UNSPEC;
	case PARSED_FLOW:
		step = STEP_FRESH;
		if (config->flags & CONFIG_FLOWS)
			step = flow_through(skb, &p, &plan);
		if (step == STEP_FRESH)
			step = known(&p, &plan);
		if (step == STEP_FRESH)
			step = fresh(&p, &plan);
		if (step == STEP_NEW || plan.again)
			step = enter(&p, &plan, step);
		if (p.kind & PACKET_FIRST && (step == STEP_IN || step == STEP_OUT))
			fragment_note(&p, &plan, step);
		break;
	case PARSED_LATER:
		step = fragment_known(&p, &plan);
		if (step == STEP_FLOW)
			step = flow_through(skb, &p, &plan);
		/* The flow is gone. */
		if (step == STEP_FRESH)
			step = STEP_PASS;
		break;
	case PARSED_ERROR:
		step = quoted_error(skb, &p, &plan);
		break;
	default:
		return TC_ACT_UNSPEC;
	}
	if (step == STEP_IN)
		step = send_in(skb, &p, &plan);
	else if (step == STEP_OUT)
		step = send_out(skb, &p, &plan);
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
	case STEP_REQUOTE:
		return finish(skb, &p, &plan, STEP_TOO_BIG) ? TC_ACT_SHOT : requote(skb, &p);
	}
	return TC_ACT_SHOT;
}

/* What leaves this host. Its own errors about packets that it got rewritten quote them as they are now: they are put right. And
 * replies of servers on this very host get the virtual address. */
SECTION("classifier") int director_out(struct __sk_buff *skb)
{
	struct packet p = {};
	struct plan plan = {};
	const struct configuration *config = config_now();
	if (!config || config->flags & CONFIG_BACKUP_ONLY)
		return TC_ACT_UNSPEC;
	plan.now = now_tick();
	int step = STEP_PASS;
	switch (parse(skb, &p)) {
	case PARSED_FLOW:
		if (config->flags & CONFIG_LOCAL)
			step = known_reply(&p, &plan);
		break;
	case PARSED_ERROR:
		step = quoted_error(skb, &p, &plan);
		break;
	}
	if (step != STEP_OUT)
		return TC_ACT_UNSPEC;
	return rewrite_out(skb, &p, &plan) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

const char licence[] SECTION("license") = "Dual MIT/GPL";
