import type { Kind } from './kinds.ts'

export type Key<T> = {
  readonly kind: Kind<T>
  readonly default: T
  readonly description: string
  /** Without the dashes. The environment variable is derived from it. */
  readonly flag: string
  /** One letter. */
  readonly short?: string
  /** Takes effect on SIGHUP, without a restart. */
  readonly reload: boolean
  /** Also read from CRI-O's variable CONTAINER_…; never for the places of a daemon's own state. */
  readonly shared: boolean
  /** Nothing acts on it in this version, because of this: setting it gives a warning. */
  readonly pending?: string
}

type Extras = {
  readonly flag: string
  readonly short?: string
  readonly reload?: true
  readonly own?: true
  readonly pending?: string
}

export function key<T>(kind: Kind<T>, value: T, description: string, extras: Extras): Key<T> {
  const { reload = false, own = false, ...rest } = extras
  return { kind, default: value, description, reload, shared: !own, ...rest }
}

/** A key of `[crio.runtime.runtimes.<name>]`. */
export type HandlerKey<T> = Pick<Key<T>, 'kind' | 'default' | 'description'>

export function handlerKey<T>(kind: Kind<T>, value: T, description: string): HandlerKey<T> {
  return { kind, default: value, description }
}
