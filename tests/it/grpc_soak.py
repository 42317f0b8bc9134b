"""A client of gRPC (grpcio) that calls without a pause, beside one stream that lasts. usage: grpc_soak.py HOST:PORT END
It ends when the file END is there, with 0 when no call failed and the stream was never cut."""
import os,queue,sys,threading,grpc
def main(addr,end):
    ch=grpc.insecure_channel(addr); U=ch.unary_unary('/reeve.Echo/U'); faults=[]; calls=[0]
    q=queue.Queue(); stream=ch.stream_stream('/reeve.Echo/B')(iter(q.get,None),timeout=600)
    def soak():
        n=0
        while not os.path.exists(end):
            n+=1
            try:
                assert U(b'%d'%n,timeout=20)==b'echo:%d'%n
            except Exception as e: faults.append(repr(e)[:300])
            calls[0]+=1
    threads=[threading.Thread(target=soak) for _ in range(3)]
    for t in threads: t.start()
    pings=0
    while not os.path.exists(end):
        q.put(b'%d'%pings)
        try: assert next(stream)==b'b:%d'%pings
        except Exception as e: faults.append('stream: '+repr(e)[:300]); break
        pings+=1
    for t in threads: t.join()
    q.put(None)
    print('%d calls and %d messages of one stream, %d failed'%(calls[0],pings,len(faults)))
    for fault in faults[:5]: print(fault.replace('\n',' '))
    return 1 if faults or not calls[0] or not pings else 0
sys.exit(main(sys.argv[1],sys.argv[2]) if len(sys.argv)==3 else __doc__)
