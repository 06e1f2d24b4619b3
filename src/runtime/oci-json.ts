/**
 * An OCI document as JSON, with RLIM_INFINITY (2⁶⁴−1, which no number holds) where the model has -1. Inside a JSON
 * string the quotes would be escaped, so only members match.
 */
export function ociJson(document: unknown): string {
  return JSON.stringify(document).replaceAll(/"(hard|soft)":-1([,}])/g, '"$1":18446744073709551615$2')
}
