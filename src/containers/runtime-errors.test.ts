import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BerthError, internal } from '../base/errors.ts'
import { createFailure, execFailure, updateFailure } from './runtime-errors.ts'

function told(error: unknown): string {
  assert.ok(error instanceof BerthError)
  return `${error.code} ${error.message}`
}

test('what a runtime says of a request becomes the field that is at fault', () => {
  const cases: Array<[words: string, field: string]> = [
    ['runc create failed: exec: "/x": stat /x: no such file or directory', 'config.command'],
    ['executable file `x` not found in $PATH: No such file or directory', 'config.command'],
    [
      'runc create failed: chdir to cwd ("/x") set in config.json failed: permission denied',
      'config.working_dir',
    ],
    ['container init was OOM-killed (memory limit too low?)', 'config.linux.resources.memory_limit_in_bytes'],
    [
      'failed to write "7": write /sys/fs/cgroup/x/cpuset.cpus: numerical result out of range',
      'config.linux.resources',
    ],
    [
      'error mounting "/tmp" to rootfs at "/etc/passwd/x": mkdir /r/etc/passwd: not a directory',
      'config.mounts',
    ],
  ]
  for (const [words, field] of cases) {
    assert.equal(told(createFailure(internal(words))), `invalid ${field}: ${words}`)
  }
  assert.equal(
    told(execFailure('cmd', internal('exec: "x": permission denied'))),
    'invalid cmd: exec: "x": permission denied',
  )
  const limit = 'failed to write "1": write /c/memory.max: invalid argument'
  assert.equal(told(updateFailure(internal(limit))), `invalid linux: ${limit}`)
})

test('a file of version 2 that is named by a request, and by a runtime that could not write it', () => {
  const unified = { 'io.max': '8:0 rbps=x', 'io.none': '1' }
  for (const words of [
    'unable to set unified resource "io.none": openat2 /sys/fs/cgroup/a/io.none: no such file or directory',
    'open `io.none` for writing: No such file or directory',
    'failed to write "8:0 rbps=x": write /sys/fs/cgroup/a/io.max: invalid argument',
    'controller `io` is not available under /sys/fs/cgroup/a/cgroup.controllers',
    'unified resource "io.none" can\'t be set: controller "io" not available',
  ]) {
    const error = internal(words)
    assert.equal(told(createFailure(error, unified)), `invalid config.linux.resources.unified: ${words}`)
    assert.equal(told(updateFailure(error, unified)), `invalid linux.unified: ${words}`)
  }
  const other = internal('write /sys/fs/cgroup/a/io.maximum: no space left on device')
  assert.equal(createFailure(other, unified), other)
  assert.equal(updateFailure(other, unified), other)
})

test('what is not the fault of a request stays what it is', () => {
  const broken = internal('runc create failed: cannot allocate memory')
  const missing = new BerthError('not-found', 'exec: "x"')
  for (const error of [broken, missing, new Error('exec: "x"')]) {
    assert.equal(createFailure(error), error)
    assert.equal(execFailure('cmd', error), error)
    assert.equal(updateFailure(error), error)
  }
})
