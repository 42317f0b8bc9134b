/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * The shared structures as this compiler laid them out: a section of the object that nothing loads, and that a test
 * compares with director::abi. Lines are "structure.field" (or "structure"), offset and size.
 */
#ifndef REEVE_LAYOUTS_H
#define REEVE_LAYOUTS_H

#include "abi.h"
#include "kernel.h"

struct layout {
	char name[40];
	__u32 offset;
	__u32 size;
};

#define WHOLE(type) {#type, 0, sizeof(struct type)}
#define FIELD(type, field) {#type "." #field, __builtin_offsetof(struct type, field), sizeof(((struct type *)0)->field)}

const struct layout layout_table[] SECTION("layouts") = {
	WHOLE(service_key), FIELD(service_key, address), FIELD(service_key, mark), FIELD(service_key, port),
	FIELD(service_key, protocol), FIELD(service_key, family),

	WHOLE(service), FIELD(service, id), FIELD(service, generation), FIELD(service, flags), FIELD(service, scheduler),
	FIELD(service, persistence), FIELD(service, netmask), FIELD(service, list), FIELD(service, count),
	FIELD(service, table), FIELD(service, table_len), FIELD(service, step), FIELD(service, top), FIELD(service, zero),
	FIELD(service, start),

	WHOLE(service_state), FIELD(service_state, position),

	WHOLE(server), FIELD(server, address), FIELD(server, port), FIELD(server, family), FIELD(server, method),
	FIELD(server, service), FIELD(server, weight), FIELD(server, flags), FIELD(server, upper), FIELD(server, lower),
	FIELD(server, source),

	WHOLE(load), FIELD(load, active), FIELD(load, inactive), FIELD(load, persistent), FIELD(load, flags),

	WHOLE(statistics), FIELD(statistics, connections), FIELD(statistics, packets_in), FIELD(statistics, packets_out),
	FIELD(statistics, bytes_in), FIELD(statistics, bytes_out),

	WHOLE(tuple4), FIELD(tuple4, source), FIELD(tuple4, destination), FIELD(tuple4, source_port),
	FIELD(tuple4, destination_port), FIELD(tuple4, protocol), FIELD(tuple4, zero),

	WHOLE(tuple6), FIELD(tuple6, source), FIELD(tuple6, destination), FIELD(tuple6, source_port),
	FIELD(tuple6, destination_port), FIELD(tuple6, protocol), FIELD(tuple6, zero),

	WHOLE(conn), FIELD(conn, last), FIELD(conn, timeout), FIELD(conn, server), FIELD(conn, control),
	FIELD(conn, packets), FIELD(conn, created), FIELD(conn, flags), FIELD(conn, port), FIELD(conn, state),
	FIELD(conn, zero),

	WHOLE(back4), FIELD(back4, address), FIELD(back4, port), FIELD(back4, zero),
	WHOLE(back6), FIELD(back6, address), FIELD(back6, port), FIELD(back6, zero),

	WHOLE(template_key), FIELD(template_key, client), FIELD(template_key, address), FIELD(template_key, mark),
	FIELD(template_key, port), FIELD(template_key, protocol), FIELD(template_key, family),

	WHOLE(template), FIELD(template, last), FIELD(template, timeout), FIELD(template, server),
	FIELD(template, control), FIELD(template, flags),

	WHOLE(fragment_key), FIELD(fragment_key, source), FIELD(fragment_key, destination), FIELD(fragment_key, id),
	FIELD(fragment_key, protocol), FIELD(fragment_key, family), FIELD(fragment_key, zero),

	WHOLE(fragment), FIELD(fragment, seen), FIELD(fragment, server), FIELD(fragment, flags), FIELD(fragment, out),
	FIELD(fragment, zero), FIELD(fragment, address),

	WHOLE(answer_key), FIELD(answer_key, address), FIELD(answer_key, port), FIELD(answer_key, protocol),
	FIELD(answer_key, family),

	WHOLE(answer), FIELD(answer, address), FIELD(answer, port), FIELD(answer, zero), FIELD(answer, server),

	WHOLE(flow_key), FIELD(flow_key, source), FIELD(flow_key, destination), FIELD(flow_key, source_port),
	FIELD(flow_key, destination_port), FIELD(flow_key, protocol), FIELD(flow_key, family), FIELD(flow_key, zero),

	WHOLE(flow), FIELD(flow, source), FIELD(flow, destination), FIELD(flow, source_port),
	FIELD(flow, destination_port), FIELD(flow, unused), FIELD(flow, last), FIELD(flow, zero), FIELD(flow, packets),
	FIELD(flow, bytes),

	WHOLE(configuration), FIELD(configuration, version), FIELD(configuration, flags), FIELD(configuration, tcp),
	FIELD(configuration, udp), FIELD(configuration, reuse_mode), FIELD(configuration, drop_packet),
	FIELD(configuration, zero),

	WHOLE(real_server), FIELD(real_server, mss4), FIELD(real_server, mss6), FIELD(real_server, flags),
	FIELD(real_server, zero),

	WHOLE(director_key), FIELD(director_key, address), FIELD(director_key, family),

	WHOLE(reap_request), FIELD(reap_request, what), FIELD(reap_request, count),
};

#endif
