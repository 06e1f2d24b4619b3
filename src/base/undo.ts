import { BerthError, messageOf } from './errors.ts'

type Step = { readonly name: string; readonly undo: () => void | Promise<void> }

/** Some effects of a failed operation are still there; the row that names them must stay for recovery. */
export class UndoError extends BerthError {
  readonly step: string

  constructor(step: string, cause: unknown) {
    super('internal', `undo of ${step} failed: ${messageOf(cause)}`, cause)
    this.step = step
  }
}

/**
 * The effects of one operation, newest last. Register the undo *before* its effect, so that an effect which
 * happened and then threw is undone too; an undo must therefore accept that its effect never happened.
 */
export class UndoStack {
  readonly #steps: Step[] = []

  push(name: string, undo: () => void | Promise<void>): void {
    this.#steps.push({ name, undo })
  }

  /**
   * Newest first; stops at the first undo that fails, since what lies below may still be in use by what is left.
   * @throws UndoError naming that step
   */
  async run(): Promise<void> {
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        await step.undo()
      } catch (error) {
        this.#steps.push(step)
        throw new UndoError(step.name, error)
      }
    }
  }
}
