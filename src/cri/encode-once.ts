import type { MethodDefinition } from '@grpc/proto-loader'

/*
 * The lists that kubelet reads every second hardly change between two calls. Objects of the model are never changed
 * but replaced, so what was made of one stays right as long as it exists: its message, and the message's bytes.
 */

/** `convert`, whose answer is kept with each object it was made of. */
export function once<T extends object, R>(convert: (object: T) => R): (object: T) => R {
  const kept = new WeakMap<T, { readonly result: R }>()
  return object => {
    let entry = kept.get(object)
    if (entry === undefined) {
      entry = { result: convert(object) }
      kept.set(object, entry)
    }
    return entry.result
  }
}

/**
 * The method with a reply whose one field is a list and whose items are encoded once each. A message with many items
 * is its one-item messages one after the other (protobuf encoding specification, "Last One Wins" and merging).
 */
export function withItemsEncodedOnce<
  Request,
  Reply,
  RequestOut,
  ReplyOut,
  Field extends keyof Reply & string,
>(
  method: MethodDefinition<Request, Reply, RequestOut, ReplyOut>,
  field: Field,
): MethodDefinition<Request, Reply, RequestOut, ReplyOut> {
  const encode = once((item: object) => method.responseSerialize({ [field]: [item] } as Reply))
  return {
    ...method,
    responseSerialize: reply => Buffer.concat((reply[field] as object[]).map(encode)),
  }
}
