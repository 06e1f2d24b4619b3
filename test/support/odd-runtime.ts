import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const RUNC = '/usr/sbin/runc'

/**
 * The real runc behind a script that misbehaves on demand: what it is told for a command (`create`, `start`, `--version`,
 * …) is a piece of shell that runs first, and goes on to runc unless it ends the process.
 */
export class OddRuntime {
  #directory = ''

  /** Makes it, as the handler `odd`, below the directory of a daemon. @returns its part of the configuration */
  readonly configure = (directory: string): string => {
    return `[crio.runtime.runtimes.odd]\nruntime_path = "${this.install(directory)}"\n`
  }

  /** @returns the path of the program */
  install(directory: string): string {
    this.#directory = join(directory, 'odd')
    mkdirSync(this.#directory)
    const path = join(directory, 'odd-runc')
    const pick = '[ "$1" = --root ] && command=$3 || command=$1'
    const misbehave = `[ -e ${this.#directory}/$command ] && . ${this.#directory}/$command`
    writeFileSync(path, `#!/bin/sh\n${pick}\n${misbehave}\nexec ${RUNC} "$@"\n`, { mode: 0o755 })
    return path
  }

  on(command: string, shell: string): void {
    writeFileSync(join(this.#directory, command), `${shell}\n`)
  }

  /** All commands are runc's again. */
  behave(): void {
    rmSync(this.#directory, { recursive: true })
    mkdirSync(this.#directory)
  }
}
