import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { BerthError, errnoOf, invalid, messageOf } from '../../base/errors.ts'
import type { ContainerConfig } from '../../model/container.ts'
import { type CdiSpec, type ContainerEdits, parseCdiSpec } from './parse-spec.ts'

/** Generators write every file a device needs into it; those of a node full of GPUs have some 100 KiB. */
const MAX_FILE = 8 * 2 ** 20

/** Annotations of containers that name devices as the field does, for device plugins that know no field. */
const ANNOTATION = 'cdi.k8s.io/'

/** A device by its qualified name, and where the request names it. */
type Wish = { readonly name: string; readonly field: string }

/**
 * The edits of all devices that a container asks for, in that order; the common ones of a specification stand before
 * those of its first device. The files are read anew, so that a device that was just plugged in is there.
 * @throws BerthError invalid, naming field and device, if no specification has it or two of one directory do
 */
export async function findCdiEdits(
  config: ContainerConfig,
  directories: readonly string[],
): Promise<ContainerEdits[]> {
  const wishes = wishesOf(config)
  if (wishes.length === 0) return []
  const { specs, problems } = await readSpecs(directories)
  const used = new Set<CdiSpec>()
  return wishes.flatMap(wish => {
    const { spec, edits } = findDevice(wish, specs, directories, problems)
    if (used.has(spec)) return [edits]
    used.add(spec)
    return [spec.edits, edits]
  })
}

/** Each device once. */
function wishesOf({ cdiDevices, annotations }: ContainerConfig): Wish[] {
  const byField = cdiDevices.map((name, index) => ({ name, field: `config.CDI_devices[${index}].name` }))
  const byAnnotation = Object.entries(annotations)
    .filter(([key]) => key.startsWith(ANNOTATION))
    .flatMap(([key, value]) =>
      value
        .split(',')
        .map(name => ({ name: name.trim(), field: `config.annotations[${JSON.stringify(key)}]` })),
    )
  return [...new Map([...byField, ...byAnnotation].map(wish => [wish.name, wish])).values()]
}

/** `priority`: index of the directory; a later one goes before an earlier one. */
type ReadSpec = { readonly spec: CdiSpec; readonly priority: number }

function findDevice(
  { name, field }: Wish,
  specs: readonly ReadSpec[],
  directories: readonly string[],
  problems: readonly string[],
): { spec: CdiSpec; edits: ContainerEdits } {
  const equals = name.indexOf('=')
  const [kind, device] = [name.slice(0, equals), name.slice(equals + 1)]
  const having = specs.filter(({ spec }) => spec.kind === kind && spec.devices.has(device))
  const best = having.filter(({ priority }) => priority === having.at(-1)?.priority)
  const [found, other] = best
  if (found === undefined) {
    const unread = problems.length === 0 ? '' : ` (unreadable: ${problems.join('; ')})`
    throw invalid(
      field,
      `no CDI specification in ${directories.join(' or ')} has the device ${JSON.stringify(name)}${unread}`,
    )
  }
  if (other !== undefined) {
    throw invalid(
      field,
      `${found.spec.file} and ${other.spec.file} both have the device ${JSON.stringify(name)}`,
    )
  }
  const edits = found.spec.devices.get(device)
  if (edits === undefined) throw new BerthError('internal', `${name} vanished`)
  return { spec: found.spec, edits }
}

/** One that cannot be read is a problem of those who want its devices only. */
async function readSpecs(directories: readonly string[]): Promise<{ specs: ReadSpec[]; problems: string[] }> {
  const specs: ReadSpec[] = []
  const problems: string[] = []
  for (const [priority, directory] of directories.entries()) {
    for (const name of await namesIn(directory)) {
      const file = join(directory, name)
      try {
        specs.push({ spec: parseCdiSpec(await readDocument(file), file), priority })
      } catch (error) {
        problems.push(`${file}: ${messageOf(error)}`)
      }
    }
  }
  return { specs, problems }
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).filter(name => /^[^.].*\.(json|yaml|yml)$/.test(name)).sort()
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return []
    throw invalid('cdi_spec_dirs', `${directory} cannot be read: ${messageOf(error)}`)
  }
}

async function readDocument(file: string): Promise<unknown> {
  const { size, uid, mode } = await stat(file)
  // What it asks for is done as root.
  if (uid !== process.getuid?.() || (mode & 0o022) !== 0)
    throw new Error('can be changed by others than root')
  if (size > MAX_FILE) throw new Error(`${size} bytes, at most ${MAX_FILE}`)
  const text = await readFile(file, 'utf8')
  if (file.endsWith('.json')) return JSON.parse(text)
  // Loaded by the first node that has such a file: no other ever needs it.
  const { default: yaml } = await import('yaml')
  return yaml.parse(text, { maxAliasCount: 100 })
}
