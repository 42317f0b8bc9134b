/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * IPVS's machine of TCP states: a bystander's view of a connection, from the flags of the packets that pass.
 *
 *                  SYN                    ACK
 *        NONE ------------> SYN_RECV ------------> ESTABLISHED
 *                                                  |         |
 *                              client's FIN (nat)  |         | server's FIN (nat),
 *                                                  v         v client's FIN (dr, tun: replies are not seen)
 *                                          CLOSE_WAIT      FIN_WAIT
 *                                                  |
 *                              server's FIN        v
 *                                            TIME_WAIT  --- SYN --->  SYN_RECV, or scheduled anew
 *
 *        RST, from most states: CLOSE. A packet without any of these flags: CLOSE.
 *
 * The exact transitions are the table: a row a state, and in it what SYN, FIN, ACK and RST lead to, for packets
 * from the client (in), from the server (out), and from the client when the server's are not seen (only).
 * The second half, for CONFIG_SECURE_TCP, wants the whole handshake before ESTABLISHED.
 */
#ifndef REEVE_TCP_H
#define REEVE_TCP_H

#include "abi.h"
#include "kernel.h"
#include "parse.h"

enum direction { DIRECTION_IN, DIRECTION_OUT, DIRECTION_IN_ONLY };
enum event { EVENT_SYN, EVENT_FIN, EVENT_ACK, EVENT_RST, EVENT_NONE };

#define NO TCP_NONE
#define ES TCP_ESTABLISHED
#define SS TCP_SYN_SENT
#define SR TCP_SYN_RECV
#define FW TCP_FIN_WAIT
#define TW TCP_TIME_WAIT
#define CL TCP_CLOSE
#define CW TCP_CLOSE_WAIT
#define LA TCP_LAST_ACK
#define LI TCP_LISTEN
#define SA TCP_SYNACK

/* [state][direction][event], each padded to a power of two. */
static const __u8 tcp_next[2 * 16 * 4 * 4] = {
	/*          in: SYN FIN ACK RST   out                only                        */
	/* NONE */        SR, CL, ES, CL,   SS, TW, ES, CL,   SR, CL, ES, CL,   0, 0, 0, 0,
	/* ESTABLISHED */ ES, CW, ES, CL,   ES, FW, ES, CL,   ES, FW, ES, CL,   0, 0, 0, 0,
	/* SYN_SENT */    ES, SS, SS, CL,   SS, SS, SS, SS,   ES, SS, SS, CL,   0, 0, 0, 0,
	/* SYN_RECV */    SR, TW, ES, SR,   SR, TW, ES, CL,   SR, TW, ES, SR,   0, 0, 0, 0,
	/* FIN_WAIT */    SR, TW, FW, CL,   SS, FW, FW, CL,   SR, FW, FW, CL,   0, 0, 0, 0,
	/* TIME_WAIT */   SR, TW, TW, CL,   SS, TW, TW, TW,   SR, TW, TW, CL,   0, 0, 0, 0,
	/* CLOSE */       SR, CL, CL, CL,   SS, CL, CL, CL,   SR, CL, CL, CL,   0, 0, 0, 0,
	/* CLOSE_WAIT */  SR, CW, CW, CL,   SS, TW, CW, CL,   SR, CW, CW, CL,   0, 0, 0, 0,
	/* LAST_ACK */    SR, LA, CL, LA,   SS, LA, LA, CL,   SR, LA, CL, LA,   0, 0, 0, 0,
	/* LISTEN */      SR, LI, LI, LI,   LI, LI, ES, CL,   SR, LI, LI, LI,   0, 0, 0, 0,
	/* SYNACK */      SR, TW, ES, SR,   SR, TW, ES, CL,   SR, TW, ES, SR,   0, 0, 0, 0,
	[16 * 16] =
	/* secure */
	/* NONE */        SR, CL, ES, CL,   SS, TW, ES, CL,   SA, CL, ES, CL,   0, 0, 0, 0,
	/* ESTABLISHED */ ES, CW, ES, CL,   ES, FW, ES, CL,   ES, FW, ES, CL,   0, 0, 0, 0,
	/* SYN_SENT */    ES, SS, SS, CL,   SS, SS, SS, SS,   ES, SS, SS, CL,   0, 0, 0, 0,
	/* SYN_RECV */    SR, TW, SR, SR,   SA, TW, ES, CL,   SR, TW, ES, SR,   0, 0, 0, 0,
	/* FIN_WAIT */    SR, TW, FW, CL,   SS, FW, FW, CL,   SA, FW, FW, CL,   0, 0, 0, 0,
	/* TIME_WAIT */   SR, TW, TW, CL,   SS, TW, TW, TW,   SA, TW, TW, CL,   0, 0, 0, 0,
	/* CLOSE */       SR, CL, CL, CL,   SS, CL, CL, CL,   SA, CL, CL, CL,   0, 0, 0, 0,
	/* CLOSE_WAIT */  SR, CW, CW, CL,   SS, TW, CW, CL,   SA, CW, CW, CL,   0, 0, 0, 0,
	/* LAST_ACK */    SR, LA, CL, LA,   SS, LA, LA, CL,   SA, LA, CL, LA,   0, 0, 0, 0,
	/* LISTEN */      SR, LI, LI, LI,   LI, LI, ES, CL,   SA, LI, LI, LI,   0, 0, 0, 0,
	/* SYNACK */      SA, SA, SA, CL,   SA, TW, ES, CL,   SA, SA, SA, CL,   0, 0, 0, 0,
};

#undef NO
#undef ES
#undef SS
#undef SR
#undef FW
#undef TW
#undef CL
#undef CW
#undef LA
#undef LI
#undef SA

/* One packet is one event. */
INLINE enum event tcp_event(__u8 flags)
{
	if (flags & TCP_RST)
		return EVENT_RST;
	if (flags & TCP_SYN)
		return EVENT_SYN;
	if (flags & TCP_FIN)
		return EVENT_FIN;
	return flags & TCP_ACK ? EVENT_ACK : EVENT_NONE;
}

INLINE __u8 tcp_step(int secure, __u8 state, enum direction direction, enum event event)
{
	if (event == EVENT_NONE)
		return TCP_CLOSE;
	__u32 at = (secure ? 256 : 0) | (state & 15) << 4 | (direction & 3) << 2 | (event & 3);
	/* Linux 6.1's verifier needs the bound at the last step. */
	OPAQUE(at);
	return tcp_next[at & 511];
}

/* Counted as active (the others as inactive). */
INLINE int tcp_active(__u8 state)
{
	return state == TCP_ESTABLISHED || state == TCP_SYN_SENT || state == TCP_SYN_RECV || state == TCP_SYNACK;
}

#endif
