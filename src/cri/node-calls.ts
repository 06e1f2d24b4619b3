import { isIP } from 'node:net'
import { invalid } from '../base/errors.ts'
import type { Calls } from './call.ts'
import { toInfo } from './convert/info.ts'
import type { RuntimeCondition } from './generated/runtime/v1/RuntimeCondition.ts'
import type { RuntimeHandler } from './generated/runtime/v1/RuntimeHandler.ts'
import type { RuntimeServiceHandlers } from './generated/runtime/v1/RuntimeService.ts'
import type { HandlerView, NodeView } from './services.ts'

type NodeCalls = Pick<RuntimeServiceHandlers, 'Version' | 'Status' | 'RuntimeConfig' | 'UpdateRuntimeConfig'>

/** What kubelet asks about the runtime itself. */
export function nodeCalls(calls: Calls, node: NodeView): NodeCalls {
  return {
    Version: calls.read(() => ({
      // The version of the kubelet's runtime API, which was never raised; the package's is in runtime_api_version.
      version: '0.1.0',
      runtime_name: 'berth',
      runtime_version: node.version,
      runtime_api_version: 'v1',
    })),

    Status: calls.read(({ verbose }) => ({
      status: { conditions: conditions(node) },
      runtime_handlers: node.handlers().map(fromHandler),
      features: {
        supplemental_groups_policy: node.features.supplementalGroupsPolicy,
        user_namespaces_host_network: node.features.userNamespacesHostNetwork,
      },
      info: verbose ? toInfo('config', node.verboseConfig()) : {},
    })),

    RuntimeConfig: calls.read(() => ({
      linux: { cgroup_driver: node.cgroupDriver === 'systemd' ? 'SYSTEMD' : 'CGROUPFS' },
    })),

    UpdateRuntimeConfig: calls.write(({ runtime_config }) => {
      const cidr = runtime_config?.network_config?.pod_cidr ?? ''
      if (cidr === '') return {}
      checkCidrs('runtime_config.network_config.pod_cidr', cidr)
      node.setPodCidr(cidr)
      return {}
    }),
  }
}

function conditions(node: NodeView): RuntimeCondition[] {
  const runtime = node.runtimeReady()
  const network = node.network()
  return [
    { type: 'RuntimeReady', status: runtime.ready, reason: runtime.reason, message: runtime.message },
    { type: 'NetworkReady', status: network.ready, reason: network.reason, message: network.message },
  ]
}

function fromHandler({ name, features }: HandlerView): RuntimeHandler {
  return {
    name,
    features: {
      recursive_read_only_mounts: features.recursiveReadOnly,
      user_namespaces: features.userNamespaces,
    },
  }
}

/** One network, or one of each family with a comma between. */
function checkCidrs(field: string, text: string): void {
  for (const cidr of text.split(',')) {
    const [address = '', prefix = '', ...rest] = cidr.split('/')
    const bits = { 0: -1, 4: 32, 6: 128 }[isIP(address)] ?? -1
    if (rest.length > 0 || !/^[0-9]{1,3}$/.test(prefix) || Number(prefix) > bits) {
      throw invalid(field, `expected networks like 10.85.0.0/16, got ${JSON.stringify(text)}`)
    }
  }
}
