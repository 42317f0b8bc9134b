/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * Explicit flows: user space said with what a tuple's packets leave, addresses and ports of both ends.
 */
#ifndef REEVE_FLOWS_H
#define REEVE_FLOWS_H

#include "conn.h"
#include "fragments.h"
#include "kernel.h"
#include "maps.h"
#include "parse.h"
#include "rewrite.h"
#include "verdict.h"

/* Sends a packet of a flow; STEP_FRESH when it is of none. */
GLOBAL int flow_through(struct __sk_buff *skb, const struct packet *p, struct plan *plan)
{
	if (!p || !plan)
		return STEP_PASS;
	struct flow_key key = {
		.source_port = p->source_port,
		.destination_port = p->destination_port,
		.protocol = p->protocol,
		.family = p->family,
	};
	__builtin_memcpy(key.source, p->source, 16);
	__builtin_memcpy(key.destination, p->destination, 16);
	struct flow *flow = bpf_map_lookup_elem(&flows, &key);
	if (!flow)
		return STEP_FRESH;
	struct ends to;
	__builtin_memcpy(to.source, flow->source, 16);
	__builtin_memcpy(to.destination, flow->destination, 16);
	to.source_port = flow->source_port;
	to.destination_port = flow->destination_port;
	struct way way = {};
	/* What cannot be sent on from here, whoever holds the port may: it is his, untouched and uncounted. */
	if (p->ttl <= 1 || route(skb, p->family, to.source, to.destination, p->tos, p->segment, &way) != ROUTED)
		return STEP_PASS;
	flow->last = plan->now;
	__sync_fetch_and_add(&flow->packets, 1);
	__sync_fetch_and_add(&flow->bytes, p->length);
	if (p->kind & PACKET_FIRST)
		fragment_note(p, plan, STEP_FLOW);
	return translate(skb, p, &to, 1) ? STEP_SHOT : sent(plan, leave(&way));
}

#endif
