/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * The hashes by which sh, dh and mh find a slot; the tables' other half is filled in user space with the same.
 */
#ifndef REEVE_HASH_H
#define REEVE_HASH_H

#include "kernel.h"
#include "parse.h"

/* An address as one number in the machine's order; an IPv6 address is folded (the other words of an IPv4 address are 0). */
INLINE __u32 hash_number(const __be32 *address)
{
	return be32(address[0] ^ address[1] ^ address[2] ^ address[3]);
}

/* sh, dh: multiplicative, by 2^32 over the golden ratio squared; the upper 8 bits are the bucket of 256. */
INLINE __u32 hash_bucket(__u32 number)
{
	return (number * 0x61c88647U) >> 24;
}

#define ROTATE(x, by) ((x) << (by) | (x) >> (64 - (by)))

struct sip {
	__u64 a, b, c, d;
};

/* A round of SipHash (Aumasson and Bernstein, 2012, §2.1). */
INLINE void sip_round(struct sip *s)
{
	s->a += s->b;
	s->c += s->d;
	s->b = ROTATE(s->b, 13) ^ s->a;
	s->d = ROTATE(s->d, 16) ^ s->c;
	s->a = ROTATE(s->a, 32);
	s->c += s->b;
	s->a += s->d;
	s->b = ROTATE(s->b, 17) ^ s->c;
	s->d = ROTATE(s->d, 21) ^ s->a;
	s->c = ROTATE(s->c, 32);
}

/* mh: the low half of SipHash-1-3 over the 4 bytes of `number`, little-endian, under the key (k, k) with the first of IPVS's two. */
INLINE __u32 hash_sip(__u32 number)
{
	const __u64 key = 2654435761ULL;
	const __u64 message = 4ULL << 56 | number;
	struct sip s = {
		key ^ 0x736f6d6570736575ULL,
		key ^ 0x646f72616e646f6dULL,
		key ^ 0x6c7967656e657261ULL,
		key ^ 0x7465646279746573ULL,
	};
	s.d ^= message;
	sip_round(&s);
	s.a ^= message;
	s.c ^= 0xff;
	sip_round(&s);
	sip_round(&s);
	sip_round(&s);
	return s.a ^ s.b ^ s.c ^ s.d;
}

#endif
