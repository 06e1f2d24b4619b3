import { join } from 'node:path'
import { containerCgroup, monitorCgroup, ociCgroupsPath } from '../containers/context.ts'
import { podLabels, type SelinuxLabels } from '../containers/selinux.ts'
import type { OciSpec } from '../model/oci.ts'
import { type Pod, type ProcessRef, podUserOf } from '../model/pod.ts'
import { ensureDir, writeFileAtomic } from '../os/files.ts'
import { setContext } from '../os/selinux.ts'
import type { PodContext } from './context.ts'

/** Inside the init process's root, which holds nothing else. */
const INIT = '/catatonit'

/**
 * The first process of a shared PID namespace: an ordinary container on an empty, read-only root whose only file is
 * the node's catatonit. It does nothing but reap. Its id is the pod's.
 */
export async function startPodInit(context: PodContext, pod: Pod): Promise<ProcessRef> {
  const paths = context.paths.pod(pod.id)
  ensureDir(paths.initRoot, 0o755)
  for (const name of ['proc', 'dev', 'sys']) ensureDir(join(paths.initRoot, name), 0o755)
  writeFileAtomic(join(paths.initRoot, INIT), '', 0o755)
  const labels = podLabels(context.selinux, pod)
  if (labels !== undefined) {
    for (const name of ['', 'proc', 'dev', 'sys', INIT]) setContext(join(paths.initRoot, name), labels.mount)
  }
  const runtime = await context.handlers.available(pod.runtimeHandler)
  const files = { bundle: context.paths.bundle(pod.id), persist: context.paths.persist(pod.id) }
  const monitor = monitorCgroup(context, pod, pod.id)
  if (monitor !== undefined) await context.cgroups.create(monitor)
  const { init } = await context.heavy.run(() =>
    runtime.create({
      id: pod.id,
      name: `${pod.config.metadata.name}/init`,
      paths: files,
      spec: initSpec(context, pod, labels),
      logPath: '',
      terminal: false,
      stdin: false,
      stdinOnce: false,
      monitorCgroup: monitor,
    }),
  )
  await runtime.start(pod.id, files)
  return init
}

export function initCgroup(pod: Pod): string {
  return containerCgroup(pod, pod.id)
}

function initSpec(context: PodContext, pod: Pod, labels: SelinuxLabels | undefined): OciSpec {
  const paths = context.paths.pod(pod.id)
  const { network, ipc } = pod.config.namespaces
  const user = podUserOf(pod.config.namespaces)
  const { name, namespace, uid } = pod.config.metadata
  const none: string[] = []
  return {
    ociVersion: '1.0.2',
    process: {
      user: { uid: 0, gid: 0 },
      args: [INIT, '-P'],
      env: [],
      cwd: '/',
      capabilities: { bounding: none, effective: none, permitted: none, inheritable: none, ambient: none },
      noNewPrivileges: true,
      oomScoreAdj: Math.max(context.host.oomScoreAdj, 0),
      ...(labels === undefined || labels.process === '' ? {} : { selinuxLabel: labels.process }),
    },
    root: { path: paths.initRoot, readonly: true },
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
      {
        destination: '/dev',
        type: 'tmpfs',
        source: 'tmpfs',
        options: ['nosuid', 'noexec', 'mode=755', 'size=64k'],
      },
      {
        destination: INIT,
        type: 'bind',
        source: context.initPath,
        options: ['bind', 'ro', 'nosuid', 'nodev'],
      },
    ],
    annotations: {
      'io.kubernetes.cri.container-type': 'sandbox',
      'io.kubernetes.cri.sandbox-id': pod.id,
      'io.kubernetes.cri.sandbox-name': name,
      'io.kubernetes.cri.sandbox-namespace': namespace,
      'io.kubernetes.cri.sandbox-uid': uid,
    },
    linux: {
      namespaces: [
        { type: 'mount' },
        { type: 'pid' },
        ...(network === 'node'
          ? []
          : [
              { type: 'network' as const, path: paths.namespace('net') },
              { type: 'uts' as const, path: paths.namespace('uts') },
            ]),
        ...(ipc === 'node' ? [] : [{ type: 'ipc' as const, path: paths.namespace('ipc') }]),
        ...(user === undefined ? [] : [{ type: 'user' as const, path: paths.namespace('user') }]),
      ],
      cgroupsPath: ociCgroupsPath(initCgroup(pod)),
      resources: { devices: [{ allow: false, access: 'rwm' }] },
      maskedPaths: ['/proc/kcore', '/proc/keys', '/proc/timer_list'],
      readonlyPaths: ['/proc/sys', '/proc/sysrq-trigger'],
      ...(labels === undefined ? {} : { mountLabel: labels.mount }),
    },
  }
}
