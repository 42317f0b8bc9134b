/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * What a program says to the compiler and the kernel: sections, maps, byte order, the kernel's functions by
 * their numbers. Instead of libbpf's headers, of which nothing is here. The kernel's own user-space headers
 * (linux-libc-dev) are all that is needed to build.
 */
#ifndef REEVE_KERNEL_H
#define REEVE_KERNEL_H

#include <linux/bpf.h>
#include <linux/types.h>

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
/* Verified by itself, once, whoever calls it: this keeps the verifier's work small. */
#define GLOBAL __attribute__((noinline))
/* Verified with each caller, for it is given keys or values of maps that are on the caller's stack: before Linux 6.2 a function
 * that is verified by itself must not hand such to the kernel. */
#define LOCAL static __attribute__((noinline))

/* Maps say what they are through the types of a structure's members (BTF). */
#define MAP_NUMBER(name, value) int(*name)[value]
#define MAP_TYPE(name, type) type *name

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Every target we build is little-endian. */
#define be16(x) __builtin_bswap16(x)
#define be32(x) __builtin_bswap32(x)

/* The verifier must see a bound that the compiler thinks it knows: keeps `x` as it is in a register. */
#define OPAQUE(x) asm volatile("" : "+r"(x))

/* --- functions of the kernel, by number ---------------------------------------------------------------- */

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) =
	(void *)BPF_FUNC_map_update_elem;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_delete_elem;
static __u64 (*bpf_ktime_get_coarse_ns)(void) = (void *)BPF_FUNC_ktime_get_coarse_ns;
static __u32 (*bpf_get_prandom_u32)(void) = (void *)BPF_FUNC_get_prandom_u32;
static long (*bpf_loop)(__u32 turns, void *callback, void *context, __u64 flags) = (void *)BPF_FUNC_loop;

static long (*bpf_for_each_map_elem)(void *map, void *callback, void *context, __u64 flags) =
	(void *)BPF_FUNC_for_each_map_elem;

static long (*bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 len) =
	(void *)BPF_FUNC_skb_load_bytes;
static long (*bpf_skb_store_bytes)(struct __sk_buff *skb, __u32 offset, const void *from, __u32 len, __u64 flags) =
	(void *)BPF_FUNC_skb_store_bytes;
static long (*bpf_skb_pull_data)(struct __sk_buff *skb, __u32 len) = (void *)BPF_FUNC_skb_pull_data;
static long (*bpf_skb_change_tail)(struct __sk_buff *skb, __u32 len, __u64 flags) =
	(void *)BPF_FUNC_skb_change_tail;
static long (*bpf_skb_adjust_room)(struct __sk_buff *skb, __s32 len, __u32 mode, __u64 flags) =
	(void *)BPF_FUNC_skb_adjust_room;
static long (*bpf_l4_csum_replace)(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 flags) =
	(void *)BPF_FUNC_l4_csum_replace;
static __s64 (*bpf_csum_diff)(const __be32 *from, __u32 from_size, const __be32 *to, __u32 to_size, __u32 seed) =
	(void *)BPF_FUNC_csum_diff;

static long (*bpf_fib_lookup)(void *skb, struct bpf_fib_lookup *params, int len, __u32 flags) =
	(void *)BPF_FUNC_fib_lookup;
static long (*bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)BPF_FUNC_redirect;
static long (*bpf_redirect_neigh)(__u32 ifindex, struct bpf_redir_neigh *params, int len, __u64 flags) =
	(void *)BPF_FUNC_redirect_neigh;

#endif
