/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * What the kernel's half and the user's half of the director tell each other: every map's name, key, value
 * and meaning. `src/director/abi.rs` has the same in Rust; both sides write down sizes and offsets
 * (`layouts.h` here), and a test compares them in the built object. Change only by adding; whatever changes
 * the meaning of what is there raises ABI_VERSION, and then nothing old is taken over.
 *
 * Who writes what. Each map has one writer, named at it: "user" or "kernel". Where both write, the words
 * they write are different ones.
 *
 * Order of bytes. Addresses and ports stand as in the packet (network order: __be32, __be16), all other
 * numbers in the machine's order. An IPv4 address is the first of four words, the other three are 0.
 *
 * Time. A tick is 2^22 ns of CLOCK_MONOTONIC, 4.19 ms; instants are the low 32 bits of the count (they wrap in 208 days, so that
 * differences of up to 104 days are right: a persistence of 31 days fits), durations are counts of ticks.
 *
 * Nothing here knows a network namespace: one director per namespace, with a folder of its own.
 */
#ifndef REEVE_ABI_H
#define REEVE_ABI_H

#include <linux/types.h>

#define ABI_VERSION 1
/* A hash of this file without comments and white space, which a test compares: whoever changes the file decides whether what older
 * versions have pinned still means the same (then only this is new), or not (then ABI_VERSION is raised, too).
 * ABI_TEXT 0x544c28b009813bea */

#define TICK_SHIFT 22

#define FAMILY_V4 4
#define FAMILY_V6 6

/* --- services ----------------------------------------------------------------------------------------------
 *
 * `services`: HASH, service_key -> service. Writer: user. One update replaces a service whole, and the kernel
 * sees either the old one or the new one.
 *
 * Looked up in IPVS's order: by mark when the packet has one, then by address and port, then by address and
 * port 0. A service by mark has address, port and protocol 0; the others have mark 0.
 */
struct service_key {
	__be32 address[4];
	__u32 mark;
	__be16 port;
	__u8 protocol; /* 6 TCP, 17 UDP; 0 with a mark */
	__u8 family;   /* FAMILY_V4, FAMILY_V6; also with a mark */
};

struct service {
	/* Index into `service_state`; never 0, not given to another service while this one lives. */
	__u32 id;
	/* Raised by one with each update; 24 bits, then again from 0. See `start`. */
	__u32 generation;
	__u32 flags; /* SERVICE_* */
	__u32 scheduler; /* SCHEDULER_* */
	/* Persistence: ticks that a template lives without a new connection; 0 is none. Which bits of the client's
	 * address a template has: `netmask` for IPv4, the first word only, in network order; all four words for IPv6. */
	__u32 persistence;
	__be32 netmask[4];
	/* The servers of the service, newest-added first: `slots[list] .. slots[list + count - 1]`. */
	__u32 list;
	__u32 count; /* 0 .. SERVERS_PER_SERVICE */
	/* The table of sh and dh (256 slots) and of mh (a prime number of them): `slots[table] ..`. Slots that have
	 * no server are 0. With other schedulers `table_len` is 0. */
	__u32 table;
	__u32 table_len;
	/* wrr: greatest common divisor of the positive weights (`di`), and the greatest weight less (di - 1) (`mw`). */
	__u32 step;
	__u32 top;
	__u32 zero;
	/* Where rr and wrr go on after this update (see POSITION below). The generation in it is `generation`. */
	__u64 start;
};

#define SERVERS_PER_SERVICE 1024

#define SERVICE_ONE_PACKET (1U << 0)  /* UDP: no entry, each packet is scheduled */
#define SERVICE_FALLBACK (1U << 1)    /* sh, mh: look further when the slot's server cannot be used */
#define SERVICE_HASH_PORT (1U << 2)   /* sh, mh: the client's port is hashed too */
#define SERVICE_STACK (1U << 3)       /* nat: through the host's stack and firewall, not straight out */

#define SCHEDULER_NONE 0 /* never a server */
#define SCHEDULER_RR 1
#define SCHEDULER_WRR 2
#define SCHEDULER_LC 3
#define SCHEDULER_WLC 4
#define SCHEDULER_SED 5
#define SCHEDULER_NQ 6
#define SCHEDULER_FO 7
#define SCHEDULER_OVF 8
#define SCHEDULER_SH 9
#define SCHEDULER_DH 10
#define SCHEDULER_MH 11

/* `service_state`: ARRAY, id -> service_state. Writer: kernel (user writes 0 before an id is used again).
 *
 * POSITION, one word, changed by compare-and-swap:
 *
 *     63        40 39         16 15        0
 *    | generation |    level    |   next    |
 *
 * `next` is the index in the list at which the next look begins (the one after the last choice; count or more
 * means from the head), `level` is wrr's current weight `cw`. A position of another generation than the
 * service's does not count: the kernel then begins at `start` of the service. So, to change a service, user
 * space reads the position (or `start` of the last update, if the position is of an older generation), works
 * out where that is in the new list, and writes the service with `start` of the next generation. rr: `next`
 * follows the server that was chosen last (index + 1), to the one before it if that one is gone. wrr: next 0, `level` by
 * IPVS's rule (top if it was 0 or is above top; else, with step > 1, level / step * step + 1; else as it was).
 */
struct service_state {
	__u64 position;
};

#define POSITION_NEXT_BITS 16
#define POSITION_LEVEL_BITS 24
#define POSITION_GENERATION_BITS 24

/* --- servers -----------------------------------------------------------------------------------------------
 *
 * `servers`: ARRAY, id -> server. Writer: user. Id 0 is nobody. An id belongs to one server of one service
 * and is given to another only when `loads[id]` has been 0, 0, 0 since it was taken off the lists.
 * Weight, thresholds and flags may be written at any time; address, port, method and family stay.
 */
struct server {
	__be32 address[4];
	__be16 port;  /* 0: the port that the client asked for (always so for dr and tun) */
	__u8 family;  /* of `address`; may differ from the service's with METHOD_TUN only */
	__u8 method;  /* METHOD_* */
	__u32 service; /* id */
	__u32 weight; /* 0: no new connections but those of templates */
	__u32 flags;  /* SERVER_* */
	__u32 upper;  /* connections at which it takes no more; 0: none */
	__u32 lower;  /* below which it takes some again; 0: three quarters of `upper` */
	/* tun: where the tunnel's packets come from, an address of this machine in `family`; 0: the virtual address. */
	__be32 source[4];
};

#define METHOD_NAT 0
#define METHOD_TUN 2
#define METHOD_DR 3

/* Taken out of its service. Its connections stay, their packets are dropped (or, with CONFIG_EXPIRE_NODEST,
 * they end and are scheduled again). */
#define SERVER_GONE (1U << 0)
/* `address` is one of this machine's: nat rewrites and hands the packet to the stack. */
#define SERVER_LOCAL (1U << 1)

/* Taken out of its service, but its connections go on (a drain). Its templates do not: their clients' next connections get
 * another server. Unlike weight 0 alone, which templates go past. */
#define SERVER_LEFT (1U << 2)

/* `loads`: ARRAY, server id -> load. Writer: kernel, by atomic additions (user writes 0s before the id is
 * used again). */
struct load {
	__u32 active;   /* TCP in ESTABLISHED, SYN_SENT, SYN_RECV, SYNACK */
	__u32 inactive; /* all others */
	__u32 persistent; /* templates */
	__u32 flags;    /* LOAD_* */
};

#define LOAD_OVERLOADED (1U << 0)

/* Beside it, connections that gave way to new ones of the same tuple within this tick, for how much their server has to do. IPVS ends
 * such by a timer, at its clock's next tick, and until then they count as they did. Here they are not in the counts above any more. */
#define LOAD_LAPSED 8       /* 8 bits from here: how many */
#define LOAD_LAPSED_TICK 16 /* 16 bits from here: the lower half of the tick */

/* `statistics`: PERCPU_ARRAY, server id -> statistics; add up over the CPUs. Writer: kernel. Bytes are those
 * of the IP packet. A service's figures are its servers' (and those that servers had when they were deleted). */
struct statistics {
	__u64 connections;
	__u64 packets_in; /* client to server */
	__u64 packets_out;
	__u64 bytes_in;
	__u64 bytes_out;
};

/* `slots`: ARRAY, index -> server id. Writer: user. Lists and tables of services, each a region.
 *
 * Double buffering: never write into a region that a service points to. Write a free region, then update the
 * service, which points to it; the old region is free a second later (no program runs that long). */

/* --- connections -------------------------------------------------------------------------------------------
 *
 * `conn4`, `conn6`: HASH, tuple of the client's packets -> conn. Writer: kernel; user space reads in batches,
 * and deletes through the program `reap` only, since counters must move with it.
 * `back4`, `back6`: HASH, tuple of the server's packets (nat only) -> the virtual address and port that the
 * reply gets as its source; with the client's end these are the key of the connection.
 *
 * A connection that has been silent for longer than its timeout is absent, swept or not:
 * (int)(now - last) > (int)timeout.
 */
struct tuple4 {
	__be32 source;
	__be32 destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 zero[3];
};

struct tuple6 {
	__be32 source[4];
	__be32 destination[4];
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 zero[3];
};

struct conn {
	__u32 last;    /* tick of the last packet, either direction */
	__u32 timeout; /* ticks, by state */
	__u32 server;  /* id */
	__u32 control; /* index of `controls` that counts it, for connections of a template; else 0 */
	__u32 packets; /* from the client, about: two CPUs at once may count one */
	__u32 created; /* tick */
	__u16 flags;   /* CONN_*, IPVS's own numbers */
	__be16 port;   /* the server's */
	__u8 state;    /* TCP_*; 0 for UDP */
	__u8 zero[3];
};

#define CONN_METHOD 0x7         /* METHOD_* */
#define CONN_SYNCED 0x20        /* came from a peer */
#define CONN_NO_OUTPUT 0x80     /* no packet of the server has been seen: input-only transitions */
#define CONN_INACTIVE 0x100     /* counted as inactive */
#define CONN_MARKED 0x4000      /* scheduled by mark */
#define CONN_STACK 0x8000       /* nat through the host's stack (SERVICE_STACK) */

struct back4 {
	__be32 address;
	__be16 port;
	__u8 zero[2];
};

struct back6 {
	__be32 address[4];
	__be16 port;
	__u8 zero[6];
};

/* States of TCP, IPVS's numbers; drawn in tcp.h. */
#define TCP_NONE 0
#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_SYN_RECV 3
#define TCP_FIN_WAIT 4
#define TCP_TIME_WAIT 5
#define TCP_CLOSE 6
#define TCP_CLOSE_WAIT 7
#define TCP_LAST_ACK 8
#define TCP_LISTEN 9
#define TCP_SYNACK 10
#define TCP_STATES 11

/* `relief`: ARRAY of two (0: IPv4, 1: IPv6), tick of the last relief. Writer: kernel.
 *
 * A full table relieves itself, with or without user space: the first refused connection of a second ends up to RELIEF_ENDED
 * entries that are over their time, or that were opened HALF_OPEN_TICKS ago and never answered (IPVS's drop_entry takes
 * such too): a flood of SYNs makes room for itself, and takes nothing from what is established.
 */
#define RELIEF_TICKS 239     /* 1 s */
#define RELIEF_SEEN 32768    /* entries that are looked at, a few milliseconds */
#define RELIEF_ENDED 4096
#define HALF_OPEN_TICKS 716  /* 3 s: the first SYN and its first repetition */

/* --- persistence -------------------------------------------------------------------------------------------
 *
 * `templates`: HASH, template_key -> template. Writer: kernel. Deleted through `reap`.
 * `controls`: ARRAY of CONTROLS counters, __u32. Writer: kernel. How many connections a template has brought
 * about that still live. A template's counter is drawn by lot, 1 .. CONTROLS - 1: two templates on one counter
 * live a little longer, no more.
 *
 * A template is absent when it has been idle for longer than its timeout and its counter is 0. `reap` gives one
 * that is idle but still counted 60 seconds more, as IPVS does.
 */
struct template_key {
	__be32 client[4]; /* under the service's netmask */
	__be32 address[4]; /* virtual; 0 for a service by mark */
	__u32 mark;
	__be16 port;      /* virtual; 0 for services by mark, of port 0, of port 21 */
	__u8 protocol;    /* 0 for a service by mark */
	__u8 family;
};

struct template {
	__u32 last; /* tick of the last new connection */
	__u32 timeout; /* ticks */
	__u32 server; /* id */
	__u32 control; /* index of `controls` */
	__u32 flags; /* TEMPLATE_* */
};

/* A connection of it was established. Set at the first look at the template after that (a new connection, or `reap`);
 * CONTROL_ASSURED in its counter says so at once. */
#define TEMPLATE_ASSURED (1U << 0)
#define CONTROL_ASSURED (1U << 31) /* beside the count in `controls` */

#define CONTROLS 65536

/* --- fragments ---------------------------------------------------------------------------------------------
 *
 * `fragments`: LRU_HASH, fragment_key -> fragment. Writer: kernel, for itself: the first fragment of a packet has ports, the
 * later ones follow it. FRAGMENT_TICKS after the first they are strangers.
 */
struct fragment_key {
	__be32 source[4];
	__be32 destination[4];
	__u32 id;
	__u8 protocol;
	__u8 family;
	__u8 zero[2];
};

struct fragment {
	__u32 seen; /* tick of the first */
	__u32 server; /* id */
	__u16 flags; /* CONN_* of the connection */
	__u8 out; /* FRAGMENT_* */
	__u8 zero;
	__be32 address[4]; /* FRAGMENT_OUT: the new source; FRAGMENT_FLOW: the first one's ports, source and destination */
};

#define FRAGMENT_IN 0   /* to the server */
#define FRAGMENT_OUT 1  /* from the server */
#define FRAGMENT_FLOW 2 /* of an explicit flow */

#define FRAGMENT_TICKS 7153 /* 30 s, as long as a host keeps them (net.ipv4.ipfrag_time) */

/* --- one-packet services by nat ----------------------------------------------------------------------------
 *
 * `answers`: HASH, answer_key -> answer. Writer: user, for every nat server of a one-packet service. Such a
 * service has no connections: what comes from the server's address and port gets the service's as its source.
 * Looked up last, if CONFIG_ANSWERS is set.
 */
struct answer_key {
	__be32 address[4]; /* the server's */
	__be16 port;
	__u8 protocol;
	__u8 family;
};

struct answer {
	__be32 address[4]; /* virtual */
	__be16 port;
	__u8 zero[2];
	__u32 server; /* id */
};

/* --- what the director says ---------------------------------------------------------------------------------
 *
 * `answering`: PERCPU_ARRAY of one. Writer: kernel, for itself: how many ICMP errors this CPU may send. A tick gives
 * ANSWERS_A_TICK, up to ANSWERS_AT_ONCE: what is sent to sources that may be forged, and costs more than a packet forwarded.
 */
struct answering {
	__u32 tick;
	__u32 left;
};

#define ANSWERS_A_TICK 4 /* 954 a second; Linux's own limit is 1,000 (net.ipv4.icmp_msgs_per_sec) */
#define ANSWERS_AT_ONCE 128

/* --- explicit flows ----------------------------------------------------------------------------------------
 *
 * `flows`: HASH, flow_key -> flow. Writer: user puts in and takes out, and reads the counters; kernel counts.
 * A packet whose tuple is the key leaves with the addresses and ports of the value: full NAT of one direction.
 * Both directions are two entries. Looked up before connections, if CONFIG_FLOWS is set.
 */
struct flow_key {
	__be32 source[4];
	__be32 destination[4];
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 family;
	__u8 zero[2];
};

struct flow {
	__be32 source[4];
	__be32 destination[4];
	__be16 source_port;
	__be16 destination_port;
	__u32 unused;
	__u32 last; /* tick of the last packet; 0 before the first */
	__u32 zero;
	__u64 packets;
	__u64 bytes;
};

/* --- configuration -----------------------------------------------------------------------------------------
 *
 * `configuration`: ARRAY of one. Writer: user. Timeouts in ticks.
 */
struct configuration {
	__u32 version; /* ABI_VERSION */
	__u32 flags;   /* CONFIG_* */
	__u32 tcp[16]; /* by TCP_* */
	__u32 udp;
	__u32 reuse_mode;  /* IPVS's conn_reuse_mode */
	__u32 drop_packet; /* of this many packets that would be scheduled, one is dropped; 0: none */
	__u32 zero;
};

#define CONFIG_EXPIRE_NODEST (1U << 0)
#define CONFIG_EXPIRE_QUIESCENT (1U << 1)
#define CONFIG_SLOPPY_TCP (1U << 2)
#define CONFIG_SECURE_TCP (1U << 3)
#define CONFIG_FLOWS (1U << 4)        /* `flows` has entries */
#define CONFIG_PORT_ZERO (1U << 5)    /* a service of port 0 exists */
#define CONFIG_MARKS (1U << 6)        /* a service by mark exists */
/* 1U << 7 was said always, and is ignored. */
#define CONFIG_BACKUP_ONLY (1U << 8)  /* touch nothing */
#define CONFIG_LOCAL (1U << 9)        /* a server is SERVER_LOCAL: its replies are looked for at egress */
#define CONFIG_ANSWERS (1U << 10)     /* `answers` has entries */

/* `counters`: PERCPU_ARRAY, COUNTER_* -> __u64. Writer: kernel. */
#define COUNTER_MALFORMED 0      /* truncated or contradictory headers: passed to the stack untouched, which drops it */
#define COUNTER_NO_SERVER 1      /* a service that had nobody: answered with port unreachable */
#define COUNTER_GONE 2           /* dropped: the connection's server was deleted */
#define COUNTER_FULL 3           /* dropped: no room for a connection */
#define COUNTER_CLASH 4          /* dropped: the server's tuple is in use by another connection */
#define COUNTER_DROP_PACKET 5    /* dropped by `drop_packet` */
#define COUNTER_TOO_BIG 6        /* answered with "fragmentation needed" or "packet too big" */
#define COUNTER_TTL 7            /* answered with "time exceeded" */
#define COUNTER_NO_ROUTE 8       /* dropped: no way to the server */
#define COUNTER_FRAGMENT 9       /* a later fragment whose first was not seen: passed to the stack */
#define COUNTER_NOT_SYN 10       /* TCP without a connection that does not open one: passed to the stack */
#define COUNTER_CREATED 11       /* connections put in */
#define COUNTER_DELETED 12       /* connections taken out: created - deleted is how many there are */
#define COUNTER_TEMPLATES_FULL 13 /* a template that found no room: served without */
#define COUNTER_ICMP 14          /* ICMP errors translated */
#define COUNTER_DECAPSULATED 15  /* real server: tunnel packets opened */
#define COUNTER_CLAMPED 16       /* MSS options lowered */
#define COUNTER_RELIEVED 17      /* ended because the table was full: over their time, or half open */
#define COUNTER_UNANSWERED 18    /* of those to be answered: too many, or what must not be answered */
#define COUNTERS 32

/* --- real servers ------------------------------------------------------------------------------------------
 *
 * `real_server`: ARRAY of one. Writer: user (on real servers; today the tests alone).
 * `directors`: HASH, director_key -> __u32 1: whose tunnels are opened.
 */
struct real_server {
	__u32 mss4; /* largest MSS that its SYN-ACKs may offer; 0: as they are */
	__u32 mss6;
	__u32 flags; /* REAL_* */
	__u32 zero;
};

#define REAL_ANY_DIRECTOR (1U << 0) /* open tunnels of everybody */

struct director_key {
	__be32 address[4];
	__u32 family;
};

/* --- programs ----------------------------------------------------------------------------------------------
 *
 * director_in   tc ingress of each interface     looks up, picks, rewrites, forwards
 * director_out  tc egress of each interface      translates the host's own ICMP errors
 * real_in       tc ingress of a real server      opens tunnels
 * real_out      tc egress of a real server       lowers the MSS
 * reap          PROG_TEST_RUN only               deletes what it is told to, and moves the counters
 *
 * `reap`: the data of the run are 14 bytes of 0 (an Ethernet header), then reap_request, then `count` keys.
 * The run's return value is how many were deleted. */
struct reap_request {
	__u32 what; /* REAP_* */
	__u32 count; /* 1 .. REAP_KEYS */
};

/* Delete what is over its time (a connection's keys are tuple4 or tuple6, with its back entry). */
#define REAP_CONN4 1
#define REAP_CONN6 2
#define REAP_TEMPLATES 3
/* The same, whether it is over its time or not. */
#define REAP_FORCE 0x100

#define REAP_KEYS 64 /* as many of the longest fit into the page that a run takes */

#endif
