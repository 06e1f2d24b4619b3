import type { SpecInput } from './spec.ts'

const PREFIX = 'io.kubernetes.cri.'

/**
 * Who the container is, in the terms that VM runtimes, hooks and security tools look for. Annotations of users
 * pass only by exact name: a runtime may act on them (`org.systemd.property.*` sets properties of host units,
 * CVE-2024-3154; prefixes let too much through, CVE-2023-6476).
 */
export function buildAnnotations(input: SpecInput): Record<string, string> {
  const { config, pod, defaults } = input
  const result: Record<string, string> = Object.create(null)
  for (const key of defaults.allowedAnnotations) {
    const value = config.annotations[key] ?? pod.annotations[key]
    if (value !== undefined) result[key] = value
  }
  const own: Record<string, string | number | undefined> = {
    'container-type': 'container',
    'container-name': config.metadata.name,
    'image-name': input.imageName,
    'sandbox-id': input.podId,
    'sandbox-name': pod.metadata.name,
    'sandbox-namespace': pod.metadata.namespace,
    'sandbox-uid': pod.metadata.uid,
    'sandbox-log-directory': pod.logDirectory,
    'sandbox-cpu-period': pod.resources?.cpuPeriod,
    'sandbox-cpu-quota': pod.resources?.cpuQuota,
    'sandbox-cpu-shares': pod.resources?.cpuShares,
    'sandbox-memory': pod.resources?.memoryLimit,
  }
  for (const [key, value] of Object.entries(own))
    if (value !== undefined) result[PREFIX + key] = String(value)
  return result
}
