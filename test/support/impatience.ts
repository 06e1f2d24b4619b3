import { join } from 'node:path'
import { BerthClient } from '../../src/cri/client.ts'

const protoDir = join(import.meta.dirname, '../../proto')

/** Connections to a daemon, each of which gives every call up after a time of its own. */
export class ImpatientClients implements Disposable {
  readonly all: readonly BerthClient[]

  /** @param patience ms of each client */
  static async connect(socket: string, patience: readonly number[]): Promise<ImpatientClients> {
    return new ImpatientClients(
      await Promise.all(patience.map(timeoutMs => BerthClient.connect(socket, protoDir, { timeoutMs }))),
    )
  }

  private constructor(all: readonly BerthClient[]) {
    this.all = all
  }

  [Symbol.dispose](): void {
    for (const client of this.all) client[Symbol.dispose]()
  }
}
