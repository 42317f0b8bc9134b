/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * Whose packet it is: of a connection, of its server, or of nobody yet; then a service may want it. The order of
 * the looks is IPVS's.
 */
#ifndef REEVE_SERVE_H
#define REEVE_SERVE_H

#include "choose.h"
#include "conn.h"
#include "kernel.h"
#include "maps.h"
#include "parse.h"
#include "persist.h"
#include "relief.h"
#include "tcp.h"
#include "verdict.h"

/* A packet that would open a connection: only such a one makes an old entry give way. */
INLINE int opens(const struct packet *p)
{
	return p->protocol == PROTOCOL_TCP && p->flags & TCP_SYN && !(p->flags & TCP_RST);
}

/* IPVS's conn_reuse_mode: may the client's new SYN be scheduled anew? Connections of a template stay with it. */
INLINE int reusable(const struct configuration *config, const struct conn *conn)
{
	if (!config->reuse_mode || conn->control)
		return 0;
	if (conn->state == TCP_TIME_WAIT || conn->state == TCP_CLOSE)
		return 1;
	return config->reuse_mode & 2 && conn->state == TCP_FIN_WAIT && conn->flags & CONN_NO_OUTPUT;
}

/* The packet is not of the connection that is there: that one gives way to a new one. */
INLINE int gives_way(const struct configuration *config, const struct conn *conn, const struct server *server,
		     const struct packet *p)
{
	if (server->flags & SERVER_GONE)
		return config->flags & CONFIG_EXPIRE_NODEST;
	return opens(p) && ((config->flags & CONFIG_EXPIRE_NODEST && !server->weight) || reusable(config, conn));
}

INLINE enum step go_on(struct conn *conn, const struct configuration *config, const struct packet *p, struct plan *plan)
{
	step(conn, config, p, 0, plan->now);
	plan->server = conn->server;
	plan->flags = conn->flags;
	plan->port = conn->port;
	count_in(conn->server, p->length, 0);
	return STEP_IN;
}

/* A server of a one-packet service answers: there is no connection to know it by. */
INLINE enum step answers_of(const struct packet *p, struct plan *plan)
{
	struct answer_key key = {.port = p->source_port, .protocol = p->protocol, .family = p->family};
	__builtin_memcpy(key.address, p->source, 16);
	const struct answer *found = bpf_map_lookup_elem(&answers, &key);
	if (!found)
		return STEP_FRESH;
	__builtin_memcpy(plan->address, found->address, 16);
	plan->port = found->port;
	plan->server = found->server;
	plan->flags = METHOD_NAT;
	count_out(found->server, p->length);
	return STEP_OUT;
}

/* A packet of a server, whose connection or answer is known: STEP_OUT; else STEP_FRESH. `t` is its tuple. */
INLINE enum step reply(const struct configuration *config, const struct packet *p, union tuple *t, struct plan *plan)
{
	/* The same addresses are the key of the way back. */
	if (!back_find(p->family, t, plan->address, &plan->port))
		return config->flags & CONFIG_ANSWERS ? answers_of(p, plan) : STEP_FRESH;
	tuple(t, p->family, p->protocol, p->destination, plan->address, p->destination_port, plan->port);
	struct conn *conn = find(p->family, t);
	if (!conn || over(conn, plan->now))
		return STEP_FRESH;
	step(conn, config, p, 1, plan->now);
	plan->server = conn->server;
	plan->flags = conn->flags;
	count_out(conn->server, p->length);
	return STEP_OUT;
}

/* At egress: only what servers on this host send is looked for. What a client sent was counted as it came, and by dr it
 * leaves with the same tuple. */
GLOBAL int known_reply(const struct packet *p, struct plan *plan)
{
	const struct configuration *config = config_now();
	if (!p || !plan || !config)
		return STEP_FRESH;
	union tuple t = {};
	tuple(&t, p->family, p->protocol, p->source, p->destination, p->source_port, p->destination_port);
	return reply(config, p, &t, plan);
}

/* A packet of a connection, from either end: STEP_IN, STEP_OUT, STEP_SHOT; else STEP_FRESH. */
GLOBAL int known(const struct packet *p, struct plan *plan)
{
	const struct configuration *config = config_now();
	if (!p || !plan || !config)
		return STEP_PASS;
	union tuple t = {};
	__u8 family = p->family;
	tuple(&t, family, p->protocol, p->source, p->destination, p->source_port, p->destination_port);
	struct conn *conn = find(family, &t);
	if (conn && !over(conn, plan->now)) {
		const struct server *server = server_of(conn->server);
		if (!server)
			return STEP_SHOT;
		plan->again = gives_way(config, conn, server, p);
		if (plan->again)
			return STEP_FRESH;
		if (server->flags & SERVER_GONE) {
			count(COUNTER_GONE);
			return STEP_SHOT;
		}
		return go_on(conn, config, p, plan);
	}
	if (conn) {
		end(&t, family, plan->now, 0);
		return STEP_FRESH;
	}
	return reply(config, p, &t, plan);
}

/* The service that a packet is for: by mark, by address and port, by address alone. */
INLINE const struct service *service_for(const struct configuration *config, const struct packet *p, __u32 mark,
					 enum found *how)
{
	struct service_key key = {.family = p->family};
	const struct service *service;
	if (mark && config->flags & CONFIG_MARKS) {
		key.mark = mark;
		*how = FOUND_MARK;
		service = bpf_map_lookup_elem(&services, &key);
		if (service)
			return service;
		key.mark = 0;
	}
	__builtin_memcpy(key.address, p->destination, 16);
	key.protocol = p->protocol;
	key.port = p->destination_port;
	*how = FOUND_EXACT;
	service = bpf_map_lookup_elem(&services, &key);
	if (service || !(config->flags & CONFIG_PORT_ZERO))
		return service;
	key.port = 0;
	*how = FOUND_PORT_ZERO;
	return bpf_map_lookup_elem(&services, &key);
}

/* A service may take it, and a server is chosen: STEP_NEW, in the plan what the connection is to be. */
GLOBAL int fresh(const struct packet *p, struct plan *plan)
{
	const struct configuration *config = config_now();
	if (!p || !plan || !config)
		return STEP_PASS;
	enum found how = FOUND_EXACT;
	const struct service *service = service_for(config, p, plan->mark, &how);
	if (!service)
		return STEP_PASS;
	/* Active FTP's data come from port 20, and have a connection already. */
	if (p->source_port == PORT_20)
		return STEP_PASS;
	if (p->protocol == PROTOCOL_TCP &&
	    (p->flags & TCP_RST || !(p->flags & TCP_SYN || config->flags & CONFIG_SLOPPY_TCP))) {
		count(COUNTER_NOT_SYN);
		return STEP_PASS;
	}
	if (config->drop_packet && bpf_get_prandom_u32() % config->drop_packet == 0) {
		count(COUNTER_DROP_PACKET);
		return STEP_SHOT;
	}
	__u32 id = service->persistence ? by_template(service, p, plan, how) : choose(service, p);
	const struct server *server = server_of(id);
	if (!id || !server)
		return STEP_NOBODY;

	plan->server = id;
	plan->flags = server->method | CONN_INACTIVE;
	if (server->method != METHOD_NAT)
		plan->flags |= CONN_NO_OUTPUT;
	else if (service->flags & SERVICE_STACK)
		plan->flags |= CONN_STACK;
	if (how == FOUND_MARK)
		plan->flags |= CONN_MARKED;
	/* A template for all ports leaves each as it is. */
	plan->port = server->port && !(service->persistence && how != FOUND_EXACT) ? server->port : p->destination_port;

	if (service->flags & SERVICE_ONE_PACKET && p->protocol == PROTOCOL_UDP) {
		count_in(id, 0, 1);
		count_in(id, p->length, 0);
		return STEP_IN;
	}
	return STEP_NEW;
}

/* Ends the connection that is there, if it is still one that gives way: since it was looked at another CPU may have put a new one
 * in, and that one stays. (Not if it does so between this look and the end; see CONN_DEAD for such moments.) */
INLINE void give_way(const struct configuration *config, const struct packet *p, struct plan *plan, const union tuple *t)
{
	plan->again = 0;
	struct conn *conn = find(p->family, t);
	const struct server *server = conn ? server_of(conn->server) : 0;
	if (!server || !gives_way(config, conn, server, p))
		return;
	struct load *load = load_of(conn->server);
	if (load)
		lapse(load, plan->now);
	end(t, p->family, plan->now, 1);
}

/* After `fresh`, whose answer is `step`: the connection that gives way ends (only now: it counts while a server is chosen for the new
 * one, as with IPVS), and the new one is put in. */
GLOBAL int enter(const struct packet *p, struct plan *plan, int step)
{
	const struct configuration *config = config_now();
	if (!p || !plan || !config)
		return STEP_SHOT;
	union tuple t = {};
	tuple(&t, p->family, p->protocol, p->source, p->destination, p->source_port, p->destination_port);
	if (plan->again)
		give_way(config, p, plan, &t);
	if (step != STEP_NEW)
		return step;
	int made = make(p, &t, plan);
	if (made == MADE_FULL && !find(p->family, &t) && relieve(p->family, plan->now))
		made = make(p, &t, plan);
	if (made == MADE && (plan->flags & CONN_METHOD) == METHOD_NAT)
		made = make_back(p, &t, plan);
	if (made == MADE_CLASH) {
		count(COUNTER_CLASH);
		return STEP_SHOT;
	}
	if (made == MADE)
		count_in(plan->server, 0, 1);
	/* Ours, or the one of another CPU that was first. */
	struct conn *conn = find(p->family, &t);
	if (!conn) {
		count(COUNTER_FULL);
		return STEP_SHOT;
	}
	return go_on(conn, config, p, plan);
}

#endif
