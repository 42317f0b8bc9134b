/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * The maps of abi.h. The sizes here are for tests; user space sets them as it loads (see sys::bpf), since a
 * table of connections takes its memory at once: nothing has to be allocated while packets come.
 */
#ifndef REEVE_MAPS_H
#define REEVE_MAPS_H

#include "abi.h"
#include "kernel.h"

#define MAP(NAME, TYPE, KEY, VALUE, ENTRIES)                                                                    \
	struct {                                                                                                \
		MAP_NUMBER(type, TYPE);                                                                         \
		MAP_TYPE(key, KEY);                                                                             \
		MAP_TYPE(value, VALUE);                                                                         \
		MAP_NUMBER(max_entries, ENTRIES);                                                               \
	} NAME SECTION(".maps")

MAP(configuration, BPF_MAP_TYPE_ARRAY, __u32, struct configuration, 1);
MAP(services, BPF_MAP_TYPE_HASH, struct service_key, struct service, 256);
MAP(service_state, BPF_MAP_TYPE_ARRAY, __u32, struct service_state, 257);
MAP(servers, BPF_MAP_TYPE_ARRAY, __u32, struct server, 4096);
MAP(loads, BPF_MAP_TYPE_ARRAY, __u32, struct load, 4096);
MAP(statistics, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct statistics, 4096);
MAP(slots, BPF_MAP_TYPE_ARRAY, __u32, __u32, 65536);
MAP(conn4, BPF_MAP_TYPE_HASH, struct tuple4, struct conn, 4096);
MAP(conn6, BPF_MAP_TYPE_HASH, struct tuple6, struct conn, 4096);
MAP(back4, BPF_MAP_TYPE_HASH, struct tuple4, struct back4, 4096);
MAP(back6, BPF_MAP_TYPE_HASH, struct tuple6, struct back6, 4096);
MAP(relief, BPF_MAP_TYPE_ARRAY, __u32, __u32, 2);
MAP(templates, BPF_MAP_TYPE_HASH, struct template_key, struct template, 1024);
MAP(controls, BPF_MAP_TYPE_ARRAY, __u32, __u32, CONTROLS);
MAP(fragments, BPF_MAP_TYPE_LRU_HASH, struct fragment_key, struct fragment, 4096);
MAP(answers, BPF_MAP_TYPE_HASH, struct answer_key, struct answer, 1024);
MAP(answering, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct answering, 1);
MAP(flows, BPF_MAP_TYPE_HASH, struct flow_key, struct flow, 1024);
MAP(counters, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, __u64, COUNTERS);
MAP(real_server, BPF_MAP_TYPE_ARRAY, __u32, struct real_server, 1);
MAP(directors, BPF_MAP_TYPE_HASH, struct director_key, __u32, 256);

INLINE void count(__u32 what)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &what);
	if (counter)
		*counter += 1;
}

#endif
