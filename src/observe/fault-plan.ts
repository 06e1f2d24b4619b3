import { openSync, writeSync } from 'node:fs'
import { sleep } from '../base/clock.ts'
import type { Effect, EffectHook } from '../base/effects.ts'
import { BerthError, invalid } from '../base/errors.ts'

type Action =
  | { readonly kind: 'kill' | 'hang' }
  | { readonly kind: 'fail'; readonly errno: string | undefined }
  | { readonly kind: 'delay'; readonly ms: number }

/** When an action is due: at an effect's number over the life of the process, or at the n-th of its kind. */
type Point = {
  /** `os.mount`, `os.*`, `state.commit=image` with a subject, or undefined for any effect. */
  readonly effect: string | undefined
  /** 1 is the first; undefined is every one. */
  readonly number: number | undefined
  /** Also everything after it. */
  readonly onwards: boolean
}

type Rule = { readonly action: Action; readonly point: Point }

export type FaultPlan = { readonly rules: readonly Rule[]; readonly trace: string | undefined }

const FIELD = 'BERTH_FAULTS'
const RULE =
  /^(kill|hang|fail|failfrom|delay)@([a-z]+\.(?:\*|[a-z0-9-]+(?:=[^,:#]+)?)|\d+)(?:#(\d+))?(?::([A-Z0-9]+|\d+))?$/

/** Rules separated by commas, as docs/testing.md describes them. @throws BerthError invalid, naming the rule */
export function parseFaultPlan(text: string): FaultPlan {
  const rules: Rule[] = []
  let trace: string | undefined
  for (const part of text.split(',').map(piece => piece.trim())) {
    if (part === '') continue
    if (part.startsWith('trace=')) trace = part.slice('trace='.length)
    else rules.push(parseRule(part))
  }
  return { rules, trace }
}

function parseRule(text: string): Rule {
  const match = RULE.exec(text)
  if (match === null)
    throw invalid(FIELD, `expected action@point such as "kill@17" or "fail@os.mount#2", got "${text}"`)
  const [, verb = '', place = '', nth, argument] = match
  const byNumber = /^\d+$/.test(place)
  if (byNumber && nth !== undefined) throw invalid(FIELD, `a number has no "#": "${text}"`)
  const number = byNumber ? Number(place) : nth === undefined ? undefined : Number(nth)
  if (number === 0) throw invalid(FIELD, `effects are counted from 1: "${text}"`)
  const point = { effect: byNumber ? undefined : place, number, onwards: verb === 'failfrom' }
  return { action: parseAction(verb, argument, text), point }
}

function parseAction(verb: string, argument: string | undefined, text: string): Action {
  if (verb === 'delay') {
    if (argument === undefined || !/^\d{1,9}$/.test(argument)) {
      throw invalid(FIELD, `expected milliseconds after ":": "${text}"`)
    }
    return { kind: 'delay', ms: Number(argument) }
  }
  if (verb === 'kill' || verb === 'hang') {
    if (argument !== undefined) throw invalid(FIELD, `${verb} takes nothing after ":": "${text}"`)
    return { kind: verb }
  }
  if (argument !== undefined && !/^E[A-Z0-9]+$/.test(argument)) {
    throw invalid(FIELD, `expected the name of an errno after ":": "${text}"`)
  }
  return { kind: 'fail', errno: argument }
}

/** What a plan needs of the process; a test gives its own. */
export type FaultMachinery = {
  /** SIGKILL to this process; returns only in a test. */
  kill(): void
  /** Blocks the thread. */
  block(ms: number): void
  trace(line: string): void
}

/** Counts effects and does what the plan says before each of them. */
export class FaultHook implements EffectHook {
  readonly #plan: FaultPlan
  readonly #machinery: FaultMachinery
  readonly #counts = new Map<string, number>()
  #number = 0

  constructor(plan: FaultPlan, machinery: FaultMachinery = processMachinery(plan.trace)) {
    this.#plan = plan
    this.#machinery = machinery
  }

  sync(effect: Effect): void {
    for (const action of this.#due(effect)) {
      if (action.kind === 'delay') this.#machinery.block(action.ms)
      else if (action.kind === 'hang') this.#machinery.block(Number.POSITIVE_INFINITY)
      else this.#strike(action, effect)
    }
  }

  async async(effect: Effect): Promise<void> {
    for (const action of this.#due(effect)) {
      if (action.kind === 'delay') await sleep(action.ms)
      else if (action.kind === 'hang') await new Promise(() => undefined)
      else this.#strike(action, effect)
    }
  }

  #strike(action: Action, effect: Effect): void {
    if (action.kind === 'kill') this.#machinery.kill()
    else if (action.kind === 'fail') throw faultOf(effect, this.#number, action.errno)
  }

  #due(effect: Effect): Action[] {
    const number = ++this.#number
    const kind = `${effect.layer}.${effect.name}`
    const names = [kind, `${effect.layer}.*`, `${kind}=${effect.subject}`]
    for (const name of names) this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1)
    this.#machinery.trace(`${number} ${kind} ${effect.subject}\n`)
    return this.#plan.rules
      .filter(({ point }) => {
        if (point.effect !== undefined && !names.includes(point.effect)) return false
        if (point.number === undefined) return true
        const count = point.effect === undefined ? number : (this.#counts.get(point.effect) ?? 0)
        return point.onwards ? count >= point.number : count === point.number
      })
      .map(rule => rule.action)
  }
}

function faultOf(effect: Effect, number: number, errno: string | undefined): Error {
  const message = `injected fault at effect ${number}: ${effect.layer}.${effect.name} ${effect.subject}`
  if (errno === undefined) return new BerthError('internal', message)
  return Object.assign(new Error(`${errno}: ${message}`), { code: errno })
}

function processMachinery(tracePath: string | undefined): FaultMachinery {
  const descriptor = tracePath === undefined ? undefined : openSync(tracePath, 'a', 0o600)
  const cell = new Int32Array(new SharedArrayBuffer(4))
  const block = (ms: number) => {
    Atomics.wait(cell, 0, 0, ms)
  }
  return {
    kill() {
      process.kill(process.pid, 'SIGKILL')
      // The signal is on its way; nothing may happen after this effect.
      block(Number.POSITIVE_INFINITY)
    },
    block,
    trace: line => {
      if (descriptor !== undefined) writeSync(descriptor, line)
    },
  }
}
