import { internal, invalid, precondition } from '../base/errors.ts'
import type { Runtime } from './runtime.ts'

/** The configured runtime handlers. '' is the default one, as pods without a RuntimeClass ask for it. */
export class Handlers {
  readonly #byName = new Map<string, Runtime>()
  readonly default: Runtime

  /** @throws BerthError internal if the default is none of them */
  constructor(runtimes: readonly Runtime[], defaultName: string) {
    for (const runtime of runtimes) this.#byName.set(runtime.handler, runtime)
    const found = this.#byName.get(defaultName)
    if (found === undefined)
      throw internal(`the default runtime handler ${JSON.stringify(defaultName)} is not configured`)
    this.default = found
  }

  /**
   * For something new. A handler that had a problem is looked at again, so that installing its program is enough.
   * @throws BerthError invalid for an unknown name, naming those there are; precondition with the problem
   */
  async available(name: string): Promise<Runtime> {
    const runtime = this.#find(name)
    if (runtime.problem !== undefined) await runtime.probe()
    if (runtime.problem === undefined) return runtime
    throw precondition(runtime.problem)
  }

  #find(name: string): Runtime {
    const found = name === '' ? this.default : this.#byName.get(name)
    if (found !== undefined) return found
    const known = [...this.#byName.keys()].join(', ')
    throw invalid('runtime_handler', `${JSON.stringify(name)} is not configured; there are: ${known}`)
  }

  /** For what exists already: its handler may have a problem, or have left the configuration since. */
  getOrDefault(name: string): Runtime {
    return this.#byName.get(name) ?? this.default
  }

  /** Each once. */
  all(): Runtime[] {
    return [...this.#byName.values()]
  }

  /** The default one first, as ''; then each under its name. */
  list(): Array<{ readonly name: string; readonly runtime: Runtime }> {
    return [
      { name: '', runtime: this.default },
      ...this.all().map(runtime => ({ name: runtime.handler, runtime })),
    ]
  }

  /** Looks at all of them again: they may have been installed, upgraded or removed. */
  async probe(): Promise<void> {
    await Promise.all(this.all().map(runtime => runtime.probe()))
  }

  /** Looks again at those that had a problem. */
  async retry(): Promise<void> {
    const failed = this.all().filter(({ problem }) => problem !== undefined)
    await Promise.all(failed.map(runtime => runtime.probe()))
  }

  warnings(): string[] {
    return this.all().flatMap(({ warning }) => warning ?? [])
  }
}
