import type { Calls } from './call.ts'
import { containerCalls } from './container-calls.ts'
import type { RuntimeServiceHandlers } from './generated/runtime/v1/RuntimeService.ts'
import { nodeCalls } from './node-calls.ts'
import { podCalls } from './pod-calls.ts'
import type { CriServices } from './services.ts'
import { statsCalls } from './stats-calls.ts'
import { streamCalls } from './stream-calls.ts'

/** `runtime.v1.RuntimeService`: all its calls. */
export function runtimeService(calls: Calls, services: CriServices): RuntimeServiceHandlers {
  return {
    ...nodeCalls(calls, services.node),
    ...podCalls(calls, services),
    ...containerCalls(calls, services.containers),
    ...streamCalls(calls, services.streams),
    ...statsCalls(calls, services.pods, services.containers),
  }
}
