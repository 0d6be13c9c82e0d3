// The closed form of netsim/simulated/closed_form.py and fifo_link.py, at one point: the same arithmetic, held to
// Python's by tests/reports/test_projection_page.py. load: what reports/projection/page_loads.py writes.
// at: {step, backward, goodput, hop, transfer, byte} as in fifo_link.Rates.

function closedForm(load, at) {
  const computing = load.steps * at.step;
  if (load.calendar) return { compute: computing, communication: Math.max(0, new Walk(load, at).run() - computing) };
  let communication = 0;
  for (const pattern of load.patterns) {
    const apart = pattern.phases.every((phase) => phase.together || !phase.jobs.length);
    communication += pattern.count * (apart ? togetherExposed(pattern, at) : exposedOnce(pattern, at));
  }
  return { compute: computing, communication };
}

function togetherExposed(pattern, at) {
  let now = 0;
  for (const phase of pattern.phases) {
    let finish = now;
    for (const [ready, size, delays] of phase.floor)
      finish = Math.max(finish, moment(ready, now, 0, at) + size / at.goodput + delays * at.hop);
    const job = phase.together;
    if (job) {
      const released = moment(job.ready, now, 0, at);
      const [tail, delays] = job.tail;
      const busy = (job.hops * job.bytes) / at.goodput + at.hop;
      const chain = (job.bytes + (job.hops - 1) * job.piece) / at.goodput + job.hops * at.hop;
      finish = Math.max(finish, released + Math.max(busy, chain) + tail / at.goodput + delays * at.hop);
    }
    now = finish + phase.transfers * at.transfer + phase.size * at.byte;
  }
  return Math.max(0, now - at.step);
}

class FifoLink {
  constructor(at) {
    Object.assign(this, { g: at.goodput, d: at.hop, free: 0, air: [], first: 0 });
  }

  release(when, job) {
    while (this.first < this.air.length && this.air[this.first].begin < when) {
      const piece = this.air[this.first];
      if (piece.end > when) {
        const rest = (piece.size * (piece.end - when)) / (piece.end - piece.begin);
        this.air[this.first] = { begin: when, end: piece.end, size: rest, ticket: piece.ticket, hops: piece.hops };
        piece.ticket.open += 1;
        this.serve(piece.begin, when, piece.size - rest, piece.ticket, piece.hops);
        break;
      }
      this.first += 1;
      this.serve(piece.begin, piece.end, piece.size, piece.ticket, piece.hops);
    }
    const ticket = { job, open: 1, finish: 0 };
    this.serve(when, when, job.bytes, ticket, 0);
    return ticket;
  }

  finish(ticket) {
    while (ticket.open) {
      const { begin, end, size, ticket: owner, hops } = this.air[this.first++];
      this.serve(begin, end, size, owner, hops);
    }
    return ticket.finish;
  }

  serve(begin, end, size, ticket, hops) {
    if (this.first > 4096) this.air = this.air.slice(this.first), (this.first = 0);
    const job = ticket.job;
    const start = Math.max(this.free, begin);
    const piece = Math.min(job.piece, size) / this.g;
    let left = start + size / this.g;
    if (end > begin && end + piece > left) left = end + piece;
    this.free = left;
    if (hops + 1 < job.hops) {
      this.air.push({ begin: start + piece + this.d, end: left + this.d, size, ticket, hops: hops + 1 });
      return;
    }
    const [tail, delays] = job.tail;
    ticket.open -= 1;
    ticket.finish = Math.max(ticket.finish, left + tail / this.g + (1 + delays) * this.d);
  }

  underWay() {
    return this.air.slice(this.first);
  }

  state(now) {
    const air = this.underWay();
    return [Math.max(0, this.free - now), ...air.flatMap((p) => [p.begin - now, p.end - now]), ...air.map((p) => p.size)];
  }

  shift(seconds) {
    this.free += seconds;
    for (const piece of this.underWay()) (piece.begin += seconds), (piece.end += seconds);
  }
}

function moment(ready, now, began, at) {
  return Math.max(now, began + at.step * (1 - at.backward + at.backward * ready));
}

function releasedJobs(phase, link, now, began, at) {
  return phase.jobs.map((job) => link.release(moment(job.ready, now, began, at), job));
}

function finishedJobs(phase, link, tickets, now, began, at) {
  const local = phase.transfers * at.transfer + phase.size * at.byte;
  const done = tickets.map((ticket) => [ticket.job.due, link.finish(ticket) + local]);
  for (const [ready, size, delays] of phase.floor)
    done.push([0, moment(ready, now, began, at) + size / at.goodput + delays * at.hop + local]);
  return done;
}

const latest = (now, ends) => ends.reduce((most, [, end]) => Math.max(most, end), now);

function exposedOnce(pattern, at) {
  const link = new FifoLink(at);
  let now = 0, ends = [];
  for (const phase of pattern.phases) {
    ends = finishedJobs(phase, link, releasedJobs(phase, link, now, 0, at), now, 0, at);
    now = latest(now, ends);
  }
  return Math.max(0, latest(0, ends) - at.step);
}

class Walk {
  constructor(load, at) {
    Object.assign(this, { load, at, link: new FifoLink(at), now: 0, step: 1, pending: [] });
  }

  run() {
    const { steps, which, kinds, period, last } = this.load.calendar;
    let { first } = this.load.calendar, index = 0;
    const seen = new Map();
    while (index < steps.length) {
      const step = steps[index];
      if (period && first <= step && step <= last - period) {
        this.to(step);
        const before = seen.get(step % period), state = this.state();
        const repeats = before && this.same(state, before.state) ? Math.floor((last - step) / period) : 0;
        if (repeats) {
          this.shift(repeats * period, repeats * (this.now - before.now));
          let next = index;
          while (steps[next] < step + period) next += 1;
          index += repeats * (next - index);
          first = last;
          continue;
        }
        seen.set(step % period, { state, now: this.now });
      }
      this.to(step);
      this.passStep(kinds[which[index]]);
      index += 1;
    }
    this.to(this.load.steps + 1);
    for (const p of this.pending) this.now = latest(this.now, this.ends(p));
    return this.now;
  }

  state() {
    const waits = this.pending.flatMap((p) => p.tickets.flatMap((t) => [p.due - this.step, t.finish ? t.finish - this.now : 0]));
    return [...this.link.state(this.now), ...waits];
  }

  same(a, b) {
    const slack = 1e-9 * Math.max(1, this.at.step);
    return a.length === b.length && a.every((x, i) => Math.abs(x - b[i]) <= Math.max(slack, 1e-9 * Math.abs(x)));
  }

  shift(steps, seconds) {
    this.link.shift(seconds);
    const tickets = new Set([...this.link.underWay().map((p) => p.ticket), ...this.pending.flatMap((p) => p.tickets)]);
    for (const ticket of tickets) ticket.finish += seconds;
    for (const p of this.pending) (p.due += steps), (p.now += seconds), (p.began += seconds);
    this.now += seconds;
    this.step += steps;
  }

  to(step) {
    while (this.pending.length) {
      const due = Math.min(...this.pending.map((p) => p.due));
      if (due >= step) break;
      this.compute(due - this.step);
      this.passStep([]);
    }
    this.compute(step - this.step);
  }

  compute(steps) {
    this.now += steps * this.at.step;
    this.step += steps;
  }

  ends(p) {
    return finishedJobs(p.phase, this.link, p.tickets, p.now, p.began, this.at);
  }

  passStep(chains) {
    const { at, step } = this;
    const ending = this.pending.filter((p) => p.due === step);
    const within = ending.filter((p) => p.tickets.some((t) => t.job.due));
    const after = ending.filter((p) => !within.includes(p));
    this.forward(within);
    const began = this.now - at.step * (1 - at.backward);
    this.pending = this.pending.filter((p) => p.due !== step);
    for (const chain of chains) {
      const p = this.start(this.load.patterns[chain], began);
      (p.due === step ? after : this.pending).push(p);
    }
    this.now += at.step * at.backward;
    for (const p of after) this.now = latest(this.now, this.ends(p));
    this.step += 1;
  }

  start(pattern, began) {
    let now = began;
    for (const phase of pattern.phases.slice(0, -1))
      now = latest(now, finishedJobs(phase, this.link, releasedJobs(phase, this.link, now, began, this.at), now, began, this.at));
    const phase = pattern.phases[pattern.phases.length - 1];
    const tickets = releasedJobs(phase, this.link, now, began, this.at);
    const within = phase.jobs.some((job) => job.due);
    const due = this.step + pattern.overlap + (within ? 1 : 0);
    return { due: within ? due : Math.min(due, this.load.steps), phase, tickets, now, began };
  }

  forward(pending) {
    const forward = this.at.step * (1 - this.at.backward);
    let passed = 0;
    const waits = pending.flatMap((p) => this.ends(p)).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    for (const [due, end] of waits) {
      this.now = Math.max(this.now + (due - passed) * forward, end);
      passed = due;
    }
    this.now += (1 - passed) * forward;
  }
}

// A calendar as it is stored has its repeating part once.
function unfolded(load) {
  if (!load.calendar || load.calendar.unfolded) return load;
  const c = load.calendar;
  const steps = [...c.head.steps], which = [...c.head.which];
  for (let i = 0; c.period && i < steps.length; i += 1) {
    const next = steps[i] + c.period;
    if (steps[i] >= c.first && next <= c.last) steps.push(next), which.push(which[i]);
  }
  c.steps = [...steps, ...c.tail.steps];
  c.which = [...which, ...c.tail.which];
  c.unfolded = true;
  return load;
}
