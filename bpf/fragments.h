/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * Fragments are not put together here: the first has the ports, is forwarded like any packet, and leaves a note for the
 * others, which have its addresses and identification (RFC 791 §2.3, RFC 8200 §4.5). One that comes before the first is a
 * stranger and falls to the host's stack.
 */
#ifndef REEVE_FRAGMENTS_H
#define REEVE_FRAGMENTS_H

#include "conn.h"
#include "kernel.h"
#include "maps.h"
#include "parse.h"
#include "verdict.h"

INLINE void fragment_name(struct fragment_key *key, const struct packet *p)
{
	__builtin_memset(key, 0, sizeof(*key));
	__builtin_memcpy(key->source, p->source, 16);
	__builtin_memcpy(key->destination, p->destination, 16);
	key->id = p->id;
	key->protocol = p->protocol;
	key->family = p->family;
}

/* The first of several was found to go in or out, or to be of a flow. */
GLOBAL int fragment_note(const struct packet *p, const struct plan *plan, int step)
{
	struct fragment_key key;
	if (!p || !plan)
		return 0;
	fragment_name(&key, p);
	struct fragment note = {
		.seen = plan->now,
		.server = plan->server,
		.flags = plan->flags,
		.out = step == STEP_OUT ? FRAGMENT_OUT : FRAGMENT_IN,
	};
	__builtin_memcpy(note.address, plan->address, 16);
	if (step == STEP_FLOW) {
		note.out = FRAGMENT_FLOW;
		note.address[0] = (__u32)p->source_port << 16 | p->destination_port;
	}
	return bpf_map_update_elem(&fragments, &key, &note, BPF_ANY);
}

/* A later one: STEP_IN, STEP_OUT or STEP_FLOW (with the ports of the first, by which its flow is found) after the first, or
 * STEP_PASS. */
GLOBAL int fragment_known(struct packet *p, struct plan *plan)
{
	struct fragment_key key;
	if (!p || !plan)
		return STEP_PASS;
	fragment_name(&key, p);
	const struct fragment *note = bpf_map_lookup_elem(&fragments, &key);
	if (!note || plan->now - note->seen > FRAGMENT_TICKS) {
		count(COUNTER_FRAGMENT);
		return STEP_PASS;
	}
	if (note->out == FRAGMENT_FLOW) {
		p->source_port = note->address[0] >> 16;
		p->destination_port = note->address[0];
		return STEP_FLOW;
	}
	plan->server = note->server;
	plan->flags = note->flags;
	__builtin_memcpy(plan->address, note->address, 16);
	if (note->out == FRAGMENT_OUT)
		count_out(plan->server, p->length);
	else
		count_in(plan->server, p->length, 0);
	return note->out == FRAGMENT_OUT ? STEP_OUT : STEP_IN;
}

#endif
