import { appendFileSync, readFileSync, statSync } from 'node:fs'
import { sleep } from '../base/clock.ts'
import type { Effect, EffectHook } from '../base/effects.ts'
import { BerthError, errnoOf, invalid } from '../base/errors.ts'

type Action =
  | { readonly kind: 'kill' | 'hang' }
  | { readonly kind: 'fail'; readonly errno: string | undefined }
  | Ruin
  | { readonly kind: 'delay'; readonly ms: number }

type Ruin = { readonly kind: 'failall'; readonly errno: string | undefined }

/** When an action is due: at an effect's number since the plan began, or at the n-th of those it names. */
type Point = {
  /** `os.mount`, `os.*`, or undefined for any effect. */
  readonly effect: string | undefined
  /** Of these subjects alone. */
  readonly subject: RegExp | undefined
  /** 1 is the first; undefined is every one. */
  readonly number: number | undefined
  /** Also everything after it. */
  readonly onwards: boolean
}

type Rule = { readonly action: Action; readonly point: Point }

export type FaultPlan = {
  readonly rules: readonly Rule[]
  readonly trace: string | undefined
  /** Whose content takes the place of this plan whenever it is replaced. */
  readonly file: string | undefined
}

const FIELD = 'BERTH_FAULTS'
const RULE =
  /^(kill|hang|fail|failfrom|failall|delay)@([a-z]+\.(?:\*|[a-z0-9-]+)(?:=[^,:#]+)?|\d+)(?:#(\d+))?(?::([A-Z0-9]+|\d+))?$/

/** How soon an effect that hangs sees that the plan was replaced; ms. */
const HANG_LOOK_MS = 10

/** Rules separated by commas, as docs/testing.md describes them. @throws BerthError invalid, naming the rule */
export function parseFaultPlan(text: string): FaultPlan {
  const rules: Rule[] = []
  let trace: string | undefined
  let file: string | undefined
  for (const part of text.split(',').map(piece => piece.trim())) {
    if (part === '') continue
    if (part.startsWith('trace=')) trace = part.slice('trace='.length)
    else if (part.startsWith('plan=')) file = part.slice('plan='.length)
    else rules.push(parseRule(part))
  }
  return { rules, trace, file }
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
  const [effect, subject] = splitPlace(byNumber ? undefined : place)
  const point = { effect, subject, number, onwards: verb === 'failfrom' }
  return { action: parseAction(verb, argument, text), point }
}

function splitPlace(place: string | undefined): [effect: string | undefined, subject: RegExp | undefined] {
  const cut = place?.indexOf('=') ?? -1
  if (place === undefined || cut < 0) return [place, undefined]
  const literals = place
    .slice(cut + 1)
    .split('*')
    .map(escapeRegExp)
  return [place.slice(0, cut), new RegExp(`^${literals.join('.*')}$`, 's')]
}

function escapeRegExp(text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|]/g, '\\$&')
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
  return { kind: verb === 'failall' ? 'failall' : 'fail', errno: argument }
}

/** What a plan needs of the process; a test gives its own. */
export type FaultMachinery = {
  /** SIGKILL to this process; returns only in a test. */
  kill(): void
  /** Blocks the thread. */
  block(ms: number): void
  /** Appends to a file. */
  trace(file: string, line: string): void
  /** Another text for each file that has been there, '' for none. */
  version(file: string): string
  read(file: string): string
}

/** Counts effects and does what the plan says before each of them. */
export class FaultHook implements EffectHook {
  readonly #file: string | undefined
  readonly #machinery: FaultMachinery
  #plan: FaultPlan
  #version = ''
  /** Effects that a rule has named so far. */
  #counts = new Map<Rule, number>()
  #number = 0
  /** Once `failall` was due. */
  #ruin: Ruin | undefined

  constructor(plan: FaultPlan, machinery: FaultMachinery = processMachinery()) {
    this.#plan = plan
    this.#file = plan.file
    this.#machinery = machinery
  }

  sync(effect: Effect): void {
    for (const action of this.#due(effect, 'sync')) {
      if (action.kind === 'delay') this.#machinery.block(action.ms)
      else if (action.kind === 'hang') this.#machinery.block(Number.POSITIVE_INFINITY)
      else this.#strike(action, effect)
    }
  }

  async async(effect: Effect): Promise<void> {
    for (const action of this.#due(effect, 'async')) {
      if (action.kind === 'delay') await sleep(action.ms)
      else if (action.kind === 'hang') await this.#hang()
      else this.#strike(action, effect)
    }
  }

  #strike(action: Action, effect: Effect): void {
    if (action.kind === 'kill') this.#machinery.kill()
    else if (action.kind === 'fail' || action.kind === 'failall') {
      throw faultOf(effect, this.#number, action.errno)
    }
  }

  /** For good, or until the file of plans is replaced: what hung then goes on. */
  async #hang(): Promise<void> {
    if (this.#file === undefined) await new Promise(() => undefined)
    const plan = this.#plan
    while (this.#plan === plan) {
      await sleep(HANG_LOOK_MS)
      this.#refresh()
    }
  }

  #refresh(): void {
    if (this.#file === undefined) return
    const version = this.#machinery.version(this.#file)
    if (version === this.#version) return
    this.#version = version
    this.#plan = parseFaultPlan(version === '' ? '' : this.#machinery.read(this.#file))
    this.#counts = new Map()
    this.#number = 0
    this.#ruin = undefined
  }

  #due(effect: Effect, kind: 'sync' | 'async'): Action[] {
    this.#refresh()
    const number = ++this.#number
    const name = `${effect.layer}.${effect.name}`
    this.#trace(`${number} ${name} ${kind} ${effect.subject}\n`)
    const due = this.#plan.rules.filter(rule => this.#isDue(rule, name, effect)).map(({ action }) => action)
    this.#ruin ??= due.find((action): action is Ruin => action.kind === 'failall')
    if (this.#ruin !== undefined && !due.includes(this.#ruin)) due.push(this.#ruin)
    if (due.length > 0) this.#trace(`${number} struck ${due.map(action => action.kind).join(' ')}\n`)
    return due
  }

  /** Counts, too: to be asked once for each effect. */
  #isDue(rule: Rule, name: string, { layer, subject }: Effect): boolean {
    const { point } = rule
    if (point.effect !== undefined && point.effect !== name && point.effect !== `${layer}.*`) return false
    if (point.subject !== undefined && !point.subject.test(subject)) return false
    const counted = (this.#counts.get(rule) ?? 0) + 1
    this.#counts.set(rule, counted)
    if (point.number === undefined) return true
    const count = point.effect === undefined ? this.#number : counted
    return point.onwards ? count >= point.number : count === point.number
  }

  #trace(line: string): void {
    if (this.#plan.trace !== undefined) this.#machinery.trace(this.#plan.trace, line)
  }
}

function faultOf(effect: Effect, number: number, errno: string | undefined): Error {
  const message = `injected fault at effect ${number}: ${effect.layer}.${effect.name} ${effect.subject}`
  if (errno === undefined) return new BerthError('internal', message)
  return Object.assign(new Error(`${errno}: ${message}`), { code: errno })
}

function processMachinery(): FaultMachinery {
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
    trace: (file, line) => appendFileSync(file, line, { mode: 0o600 }),
    version(file) {
      try {
        const { ino, mtimeNs, size } = statSync(file, { bigint: true })
        return `${ino} ${mtimeNs} ${size}`
      } catch (error) {
        if (errnoOf(error) === 'ENOENT') return ''
        throw error
      }
    },
    read: file => readFileSync(file, 'utf8'),
  }
}
