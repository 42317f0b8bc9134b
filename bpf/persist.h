/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * Persistence: a template remembers which server a client was given, and new connections of that client (of its network,
 * under the netmask) go there too while it lives. A template of a service by mark, of port 0 or of port 21 is for
 * all ports at once.
 */
#ifndef REEVE_PERSIST_H
#define REEVE_PERSIST_H

#include "choose.h"
#include "conn.h"
#include "kernel.h"
#include "maps.h"
#include "parse.h"
#include "verdict.h"

/* How a service was found. */
enum found { FOUND_EXACT, FOUND_PORT_ZERO, FOUND_MARK };

/* Idle for longer than its time, and no connection of it lives. */
INLINE int template_over(const struct template *template, __u32 now)
{
	if ((__s32)(now - template->last) <= (__s32)template->timeout)
		return 0;
	__u32 *counter = control_of(template->control);
	return !counter || !(*counter & ~CONTROL_ASSURED);
}

/* The server may be quiesced or overloaded, but has to be its service's. */
INLINE int template_usable(const struct template *template, const struct configuration *config)
{
	const struct server *server = server_of(template->server);
	return server && !(server->flags & (SERVER_GONE | SERVER_LEFT)) &&
	       (server->weight || !(config->flags & CONFIG_EXPIRE_QUIESCENT));
}

/* Being deleted. Who sets it is the one who deletes and counts. */
#define TEMPLATE_DEAD (1U << 31)

/* Ends one, whoever else wants to: 1 for the one who did. */
INLINE int template_end(const struct template_key *key, struct template *template)
{
	if (template->flags & TEMPLATE_DEAD || __sync_fetch_and_or(&template->flags, TEMPLATE_DEAD) & TEMPLATE_DEAD)
		return 0;
	struct load *load = load_of(template->server);
	if (load)
		__sync_fetch_and_add(&load->persistent, -1);
	bpf_map_delete_elem(&templates, key);
	return 1;
}

/* What its counter has learnt. */
INLINE void template_learn(struct template *template)
{
	__u32 *counter = control_of(template->control);
	if (counter && *counter & CONTROL_ASSURED && !(template->flags & TEMPLATE_ASSURED))
		__sync_fetch_and_or(&template->flags, TEMPLATE_ASSURED);
}

INLINE __u32 template_make(const struct service *service, const struct template_key *key, __u32 server, __u32 now,
			   __u32 *control)
{
	struct template template = {.last = now, .timeout = service->persistence, .server = server};
	template.control = 1 + bpf_get_prandom_u32() % (CONTROLS - 1);
	__u32 *counter = control_of(template.control);
	if (counter && *counter == CONTROL_ASSURED)
		__sync_fetch_and_and(counter, ~CONTROL_ASSURED);
	long failed = bpf_map_update_elem(&templates, key, &template, BPF_NOEXIST);
	if (failed == -EEXIST) {
		/* Another CPU was first; or is just deleting the old one, and then this connection has no template. */
		struct template *other = bpf_map_lookup_elem(&templates, key);
		if (other && !(other->flags & TEMPLATE_DEAD)) {
			*control = other->control;
			return other->server;
		}
	}
	if (failed) {
		if (failed != -EEXIST)
			count(COUNTER_TEMPLATES_FULL);
		return server;
	}
	struct load *load = load_of(server);
	if (load)
		__sync_fetch_and_add(&load->persistent, 1);
	*control = template.control;
	return server;
}

/* The server of the client's template, or one that is chosen and remembered; 0 when there is nobody. plan->control is what
 * counts the connection. */
GLOBAL __u32 by_template(const struct service *service, const struct packet *p, struct plan *plan, __u32 how)
{
	const struct configuration *config = config_now();
	if (!service || !p || !plan || !config)
		return 0;
	__u32 now = plan->now;
	struct template_key key = {.family = p->family};
	for (int i = 0; i < 4; i++)
		key.client[i] = p->source[i] & service->netmask[i];
	if (how == FOUND_MARK) {
		key.mark = plan->mark;
	} else {
		__builtin_memcpy(key.address, p->destination, 16);
		key.protocol = p->protocol;
		if (how == FOUND_EXACT && p->destination_port != PORT_21)
			key.port = p->destination_port;
	}
	struct template *template = bpf_map_lookup_elem(&templates, &key);
	if (template && !(template->flags & TEMPLATE_DEAD)) {
		__u32 server = template->server;
		if (!template_over(template, now) && template_usable(template, config)) {
			template_learn(template);
			template->last = now;
			template->timeout = service->persistence;
			plan->control = template->control;
			return server;
		}
		template_end(&key, template);
	}
	__u32 server = choose(service, p);
	return server ? template_make(service, &key, server, now, &plan->control) : 0;
}

#define MINUTE_TICKS 14306

/* For `reap`: ends one that is over its time. One that is idle, but has connections, gets a minute more. */
INLINE int template_reap(const struct template_key *key, __u32 now, __u32 force)
{
	struct template *template = bpf_map_lookup_elem(&templates, key);
	if (!template)
		return 0;
	if (template->flags & TEMPLATE_DEAD) {
		/* Its deletion missed it (see CONN_DEAD), and it was counted then. */
		if ((__s32)(now - template->last) > (__s32)template->timeout)
			bpf_map_delete_elem(&templates, key);
		return 0;
	}
	template_learn(template);
	if (force || template_over(template, now))
		return template_end(key, template);
	if ((__s32)(now - template->last) > (__s32)template->timeout)
		template->last = now + MINUTE_TICKS - template->timeout;
	return 0;
}

#endif
