"""Breadth-first search of everything that can happen, with the shortest story of what goes wrong."""
import time
from array import array
from dataclasses import dataclass, field
from outrider.sim.model import Bounds, Driver
from outrider.sim.world import World

@dataclass
class Result:
    states: int; edges: int; seconds: float; complete: bool
    fault: str|None=None
    trace: list = field(default_factory=list)
    depth: int = 0

def search(world, max_states=10**7, max_seconds=1e9, liveness=True):
    t0=time.monotonic()
    init=world.initial()
    seen={init:0}; order=[init]; parents=array('q',[-1]); edges=0
    def trace(idx, last=None):
        out=[]
        path=[]
        while idx!=-1: path.append(idx); idx=parents[idx]
        path.reverse()
        for a,b in zip(path,path[1:]):
            e=next(e for e in world.next(order[a]) if e.state==order[b])
            out.append((e.label, order[b]))
        if last: out.append((last.label,last.state))
        return out
    i=0
    while i<len(order):
        s=order[i]
        for e in world.next(s):
            edges+=1
            if e.fault:
                return Result(len(order),edges,time.monotonic()-t0,False,e.fault,trace(i,e))
            if e.state in seen: continue
            seen[e.state]=len(order); order.append(e.state); parents.append(i)
            f=world.check(e.state) or (liveness and world.settles(e.state)) or None
            if f: return Result(len(order),edges,time.monotonic()-t0,False,f,trace(len(order)-1))
        i+=1
        if len(order)>max_states or ((i&1023)==0 and time.monotonic()-t0>max_seconds):
            return Result(len(order),edges,time.monotonic()-t0,False)
    return Result(len(order),edges,time.monotonic()-t0,True)

def show(world,r):
    print(f"{r.states} states {r.edges} edges {r.seconds:.1f}s complete={r.complete} fault={r.fault}")
    for n,(l,s) in enumerate(r.trace,1):
        print(f"{n:3}. {l}")
        for line in world.text(s): print("        ",line)
if __name__=="__main__":
    import sys
    kw=eval("dict("+sys.argv[1]+")")
    ms=kw.pop("max_states",3_000_000)
    w=World(Driver(Bounds(**kw)))
    r=search(w,ms); show(w,r); print(len(w._nets),len(w._msgs),len(w._settled))
