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
		int anew;
		if (server->flags & SERVER_GONE) {
			if (!(config->flags & CONFIG_EXPIRE_NODEST)) {
				count(COUNTER_GONE);
				return STEP_SHOT;
			}
			anew = 1;
		} else {
			anew = opens(p) && ((config->flags & CONFIG_EXPIRE_NODEST && !server->weight) || reusable(config, conn));
		}
		if (!anew)
			return go_on(conn, config, p, plan);
		plan->again = 1;
		return STEP_FRESH;
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

/* Ends the connection that a new one takes the place of. */
INLINE void give_way(const struct packet *p, struct plan *plan, const union tuple *t)
{
	if (!plan->again)
		return;
	plan->again = 0;
	end(t, p->family, plan->now, 1);
}

/* A service may take it, and a server is chosen. `t` is its tuple. */
INLINE int schedule(const struct configuration *config, const struct packet *p, struct plan *plan, const union tuple *t)
{
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
	struct conn conn = {.last = plan->now, .created = plan->now, .timeout = config->udp};
	if (service->persistence)
		conn.server = by_template(service, p, plan, how);
	else
		conn.server = choose(service, p);
	conn.control = plan->control;
	const struct server *server = server_of(conn.server);
	if (!conn.server || !server)
		return STEP_NOBODY;

	conn.flags = server->method | CONN_INACTIVE;
	if (server->method != METHOD_NAT)
		conn.flags |= CONN_NO_OUTPUT;
	else if (service->flags & SERVICE_STACK)
		conn.flags |= CONN_STACK;
	if (how == FOUND_MARK)
		conn.flags |= CONN_MARKED;
	/* A template for all ports leaves each as it is. */
	conn.port = server->port && !(service->persistence && how != FOUND_EXACT) ? server->port : p->destination_port;

	if (service->flags & SERVICE_ONE_PACKET && p->protocol == PROTOCOL_UDP) {
		plan->server = conn.server;
		plan->flags = conn.flags;
		plan->port = conn.port;
		count_in(conn.server, 0, 1);
		count_in(conn.server, p->length, 0);
		return STEP_IN;
	}

	/* Only now: the old one counts while a server is chosen for the new one, as with IPVS. */
	give_way(p, plan, t);
	int made_so = make(p, t, &conn);
	if (made_so == MADE_FULL && !find(p->family, t) && relieve(p->family, plan->now))
		made_so = make(p, t, &conn);
	switch (made_so) {
	case MADE:
		count_in(conn.server, 0, 1);
		break;
	case MADE_CLASH:
		count(COUNTER_CLASH);
		return STEP_SHOT;
	case MADE_FULL:
		break;
	}
	/* Ours, or the one of another CPU that was first. */
	struct conn *made = find(p->family, t);
	if (!made) {
		count(COUNTER_FULL);
		return STEP_SHOT;
	}
	return go_on(made, config, p, plan);
}

/* A packet of no connection, or of one that is to give way. */
GLOBAL int fresh(const struct packet *p, struct plan *plan)
{
	const struct configuration *config = config_now();
	if (!p || !plan || !config)
		return STEP_PASS;
	union tuple t = {};
	tuple(&t, p->family, p->protocol, p->source, p->destination, p->source_port, p->destination_port);
	int step = schedule(config, p, plan, &t);
	give_way(p, plan, &t);
	return step;
}

#endif
