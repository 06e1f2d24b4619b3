import type { ExplainedPolicy } from '../../images/policy/policies.ts'
import type { ExplainedEndpoint, ExplainedReference } from '../../registry/explain.ts'

/** What `berth registry explain` prints about one reference. */
export function explanationText(
  explained: ExplainedReference & { readonly policy: ExplainedPolicy },
): string {
  const { reference, origin, decision, notes, endpoints, problem, policy } = explained
  const lines = [reference, field('name', origin)]
  if (problem !== undefined) return text([...lines, field('error', problem)])
  lines.push(field('decided by', decision), ...notes.map(note => field('note', note)))
  for (const [index, endpoint] of endpoints.entries()) lines.push('', ...endpointLines(endpoint, index + 1))
  lines.push('', field('policy', policy.origin), ...policy.requirements.map(rule => field('', rule)))
  return text(lines)
}

function endpointLines(endpoint: ExplainedEndpoint, number: number): string[] {
  const { urls, kind, origin, limits, tls, certificates, headers, proxy, credentials } = endpoint
  const list = (name: string, values: readonly string[]) =>
    values.map((value, index) => field(index === 0 ? name : '', value, '     '))
  return [
    `  ${number}. ${urls[0]} (${kind})`,
    ...list('because of', [origin]),
    ...list('limit', limits),
    ...list('TLS', [tls, ...certificates]),
    ...list('headers', headers),
    ...list('proxy', proxy === undefined ? [] : [proxy]),
    ...list('credentials', credentials.length === 0 ? ['none on this node'] : credentials),
  ]
}

function field(name: string, value: string, indent = '  '): string {
  return `${indent}${name === '' ? '' : `${name}:`}`.padEnd(indent.length + 13) + value
}

function text(lines: readonly string[]): string {
  return `${lines.join('\n')}\n`
}
