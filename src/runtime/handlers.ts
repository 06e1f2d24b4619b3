import { internal, invalid } from '../base/errors.ts'
import type { Runtime } from './runtime.ts'

/** The configured runtime handlers. '' is the default one, as pods without a RuntimeClass ask for it. */
export class Handlers {
  readonly #byName = new Map<string, Runtime>()
  readonly #default: Runtime

  /** @throws BerthError internal if the default is none of them */
  constructor(runtimes: readonly Runtime[], defaultName: string) {
    for (const runtime of runtimes) this.#byName.set(runtime.handler, runtime)
    const found = this.#byName.get(defaultName)
    if (found === undefined)
      throw internal(`the default runtime handler ${JSON.stringify(defaultName)} is not configured`)
    this.#default = found
  }

  /** @throws BerthError invalid, naming those there are */
  get(name: string): Runtime {
    const found = name === '' ? this.#default : this.#byName.get(name)
    if (found !== undefined) return found
    const known = [...this.#byName.keys()].join(', ')
    throw invalid('runtime_handler', `${JSON.stringify(name)} is not configured; there are: ${known}`)
  }

  /** For what exists already: its handler may have left the configuration since. */
  getOrDefault(name: string): Runtime {
    return this.#byName.get(name) ?? this.#default
  }

  /** The default one first, as ''; then each under its name. */
  list(): Array<{ readonly name: string; readonly runtime: Runtime }> {
    const named = [...this.#byName].map(([name, runtime]) => ({ name, runtime }))
    return [{ name: '', runtime: this.#default }, ...named]
  }
}
