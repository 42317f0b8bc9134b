/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * Which server a new connection gets: IPVS's schedulers, exactly. The list is newest first and every comparison
 * is strict, so that among equals the newest wins.
 *
 * Nothing is locked. rr and wrr move one word by compare-and-swap; the others look at every server once and
 * take counts as they find them, as IPVS does.
 */
#ifndef REEVE_CHOOSE_H
#define REEVE_CHOOSE_H

#include "conn.h"
#include "hash.h"
#include "kernel.h"
#include "maps.h"
#include "parse.h"

#define TRIES 8 /* at the position, against other CPUs */

struct candidate {
	__u32 id;
	__u32 weight;
	__u32 active;
	__u32 total; /* also those that IPVS would not have ended yet: see LOAD_LAPSED */
};

/* The server of a slot, if it takes new connections. */
INLINE int candidate(__u32 slot, struct candidate *c)
{
	__u32 *id = bpf_map_lookup_elem(&slots, &slot);
	if (!id || !*id)
		return 0;
	struct server *server = bpf_map_lookup_elem(&servers, id);
	struct load *load = bpf_map_lookup_elem(&loads, id);
	if (!server || !load || !server->weight || server->flags & SERVER_GONE || overloaded(server, load))
		return 0;
	c->id = *id;
	c->weight = server->weight;
	c->active = load->active;
	c->total = all_of(load);
	return 1;
}

struct scan {
	__u32 list;
	__u32 count;
	__u32 scheduler;
	__u32 start; /* the first index that is looked at; after the last comes the head */
	__u32 level; /* wrr: the least weight that will do */
	/* What was found: */
	__u32 id;
	__u32 index;
	__u32 weight;
	__u64 cost;
	__u32 highest; /* wrr: of all that can be used */
};

/* What a connection would cost at a server, and over what: the least cost / weight wins. */
INLINE __u64 cost(__u32 scheduler, const struct candidate *c)
{
	if (scheduler == SCHEDULER_SED || scheduler == SCHEDULER_NQ)
		return c->active + 1ULL;
	return c->active * 256ULL + c->total;
}

static long scan_one(__u32 turn, struct scan *s)
{
	struct candidate c;
	__u32 index = s->start + turn;
	if (index >= s->count)
		index -= s->count;
	if (!candidate(s->list + index, &c))
		return 0;
	__u32 better = !s->id;
	switch (s->scheduler) {
	case SCHEDULER_RR:
		s->id = c.id;
		s->index = index;
		return 1;
	case SCHEDULER_WRR:
		if (c.weight > s->highest)
			s->highest = c.weight;
		if (c.weight < s->level)
			return 0;
		s->id = c.id;
		s->index = index;
		return 1;
	case SCHEDULER_NQ:
		if (!c.active) {
			s->id = c.id;
			return 1;
		}
		better |= cost(SCHEDULER_NQ, &c) * s->weight < s->cost * c.weight;
		break;
	case SCHEDULER_LC:
		c.weight = 1;
		/* fall through */
	case SCHEDULER_WLC:
	case SCHEDULER_SED:
		better |= cost(s->scheduler, &c) * s->weight < s->cost * c.weight;
		break;
	case SCHEDULER_OVF:
		if (c.active > c.weight)
			return 0;
		/* fall through */
	case SCHEDULER_FO:
		better |= c.weight > s->weight;
		break;
	}
	if (better) {
		s->id = c.id;
		s->weight = c.weight;
		s->cost = cost(s->scheduler, &c);
	}
	return 0;
}

/* Looks at `turns` servers from `start` on. */
INLINE void scan(struct scan *s, __u32 turns)
{
	s->id = 0;
	s->weight = 1;
	s->highest = 0;
	bpf_loop(turns, scan_one, s, 0);
}

#define NEXT(position) ((__u32)((position) & 0xffff))
#define LEVEL(position) ((__u32)((position) >> 16 & 0xffffff))
#define GENERATION(position) ((__u32)((position) >> 40))

/* The word where the service stands now: of its own generation, or what user space gave for this one. */
INLINE __u64 stand(const struct service *service, __u64 word)
{
	return GENERATION(word) == (service->generation & 0xffffff) ? word : service->start;
}

/* Into `found` who is next after `at`. (A loop's context has to be on the function's own stack: hence the copies.) */
GLOBAL int choose_rr(struct scan *found, __u64 at)
{
	if (!found || found->count > SERVERS_PER_SERVICE)
		return 0;
	struct scan s = *found;
	s.start = NEXT(at) < s.count ? NEXT(at) : 0;
	scan(&s, s.count);
	*found = s;
	return 0;
}

/* The next server whose weight reaches the level, to the end of the list; then a level lower, from the head; after
 * the lowest the highest. */
INLINE void walk_levels(struct scan *s, __u64 at, __u32 step, __u32 top)
{
	s->level = LEVEL(at);
	if (s->level) {
		s->start = NEXT(at) < s->count ? NEXT(at) : s->count;
		scan(s, s->count - s->start);
		if (s->id)
			return;
	}
	s->level = s->level > step ? s->level - step : top;
	s->start = 0;
	scan(s, s->count);
	if (s->id || !s->highest)
		return;
	/* Nobody reaches this level; `highest` is what can be reached. Levels come down from here, then from the top: those
	 * in between are skipped in one step. */
	__u32 down = (s->level - s->highest + step - 1) / step * step;
	if (down >= s->level) {
		s->level = top;
		down = top > s->highest ? (top - s->highest + step - 1) / step * step : 0;
	}
	s->level = s->level > down ? s->level - down : 1;
	scan(s, s->count);
}

GLOBAL int choose_wrr(struct scan *found, __u64 at, __u32 step, __u32 top)
{
	if (!found || !step || !top || found->count > SERVERS_PER_SERVICE)
		return 0;
	struct scan s = *found;
	walk_levels(&s, at, step, top);
	*found = s;
	return 0;
}

struct probe {
	__u32 table;
	__u32 len;
	__u32 number; /* what is hashed */
	__u32 first;  /* the first slot */
	__u32 maglev;
	__u32 id;
};

/* sh and mh with SERVICE_FALLBACK: the slots that are tried, in IPVS's order. */
static long probe_one(__u32 turn, struct probe *p)
{
	struct candidate c;
	__u32 offset = (turn + p->first) % p->len, slot;
	if (p->maglev)
		slot = hash_sip(p->number + offset) % p->len;
	else
		slot = (offset + p->first) % p->len;
	if (!candidate(p->table + slot, &c))
		return 0;
	p->id = c.id;
	return 1;
}

INLINE __u32 choose_by_hash(const struct service *service, const struct packet *p)
{
	struct candidate c;
	struct probe probe = {.table = service->table, .len = service->table_len};
	if (!probe.len || probe.len > 131071)
		return 0;
	probe.maglev = service->scheduler == SCHEDULER_MH;
	probe.number = hash_number(service->scheduler == SCHEDULER_DH ? p->destination : p->source);
	if (service->flags & SERVICE_HASH_PORT && service->scheduler != SCHEDULER_DH)
		probe.number += be16(p->source_port);
	probe.first = (probe.maglev ? hash_sip(probe.number) : hash_bucket(probe.number)) % probe.len;
	if (candidate(probe.table + probe.first, &c))
		return c.id;
	if (!(service->flags & SERVICE_FALLBACK) || service->scheduler == SCHEDULER_DH)
		return 0;
	bpf_loop(probe.len, probe_one, &probe, 0);
	return probe.id;
}

/* The id of a server, or 0. */
GLOBAL __u32 choose(const struct service *service, const struct packet *p)
{
	if (!service || !p)
		return 0;
	__u32 scheduler = service->scheduler;
	if (scheduler == SCHEDULER_SH || scheduler == SCHEDULER_DH || scheduler == SCHEDULER_MH)
		return choose_by_hash(service, p);

	struct scan s = {.list = service->list, .count = service->count, .scheduler = scheduler};
	if (!s.count || s.count > SERVERS_PER_SERVICE || scheduler == SCHEDULER_NONE)
		return 0;
	if (scheduler != SCHEDULER_RR && scheduler != SCHEDULER_WRR) {
		scan(&s, s.count);
		return s.id;
	}
	__u32 id = service->id;
	struct service_state *state = bpf_map_lookup_elem(&service_state, &id);
	if (!state)
		return 0;
#pragma clang loop unroll(disable)
	for (int i = 0; i < TRIES; i++) {
		__u64 word = *(volatile __u64 *)&state->position;
		__u64 at = stand(service, word);
		s.id = 0;
		if (scheduler == SCHEDULER_RR)
			choose_rr(&s, at);
		else
			choose_wrr(&s, at, service->step, service->top);
		if (!s.id)
			return 0;
		__u64 next = (__u64)(service->generation & 0xffffff) << 40 | (__u64)(s.level & 0xffffff) << 16 | (s.index + 1);
		if (__sync_val_compare_and_swap(&state->position, word, next) == word)
			break;
	}
	return s.id;
}

#endif
