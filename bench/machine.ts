import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, statfsSync } from 'node:fs'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { containerdVersion } from './containerd.ts'
import { DATA } from './places.ts'
import { skopeoVersion } from './skopeo.ts'

const FILE_SYSTEMS: Readonly<Record<number, string>> = {
  61267: 'ext4',
  1481003842: 'xfs',
  2435016766: 'btrfs',
  2035054128: 'overlay',
  16914836: 'tmpfs',
}

/** What the figures depend on, one fact a line. */
export function describeMachine(date: Date): string[] {
  const [processor] = cpus()
  const cgroups = statfsSync('/sys/fs/cgroup').type === 0x63677270 ? 'v2' : 'v1'
  const fileSystem = FILE_SYSTEMS[statfsSync(DATA).type] ?? 'an unknown file system'
  return [
    `measured on ${date.toISOString().slice(0, 10)}, load average before: ${loadavg()[0]!.toFixed(2)}`,
    `${cpus().length} processors (${processor?.model.trim()}), ${Math.round(totalmem() / 2 ** 30)} GiB of memory`,
    `Linux ${release()}, ${osName()}, cgroup ${cgroups}, images on ${fileSystem}`,
    `${packages()}, containerd ${containerdVersion()}, Node.js ${process.version}`,
  ]
}

function osName(): string {
  return /^PRETTY_NAME="?([^"\n]+)/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'an unknown system'
}

function packages(): string {
  const names = ['runc', 'crun', 'conmon', 'containernetworking-plugins']
  // biome-ignore lint/suspicious/noTemplateCurlyInString: the placeholders are dpkg-query's
  const text = execFileSync('dpkg-query', ['-W', '-f', '${Package} ${Version}\n', ...names], {
    encoding: 'utf8',
  })
  const optional = [
    `igzip ${hasProgram('igzip')}`,
    `pigz ${hasProgram('pigz')}`,
    `skopeo ${skopeoVersion() ?? 'not installed'}`,
  ]
  return [...text.trim().split('\n'), ...optional].join(', ')
}

/** They make gzip quicker: igzip for Berth, pigz for containerd. */
function hasProgram(name: string): string {
  return existsSync(`/usr/bin/${name}`) ? 'installed' : 'not installed'
}
