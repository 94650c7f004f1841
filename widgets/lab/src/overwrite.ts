// Overwrite: what is there already takes another's place only as it was read, and once somebody has said so.
import { Refused, type Api } from "./api";

/** What is there now, null for nothing that can be read, and the header with which a request changes just that. */
export async function standing<T>(api: Api, path: string): Promise<{ now: T | null; condition: Record<string, string> }> {
  try {
    const { value, etag } = await api.tagged<T>(path);
    return { now: value, condition: { "If-Match": etag || "*" } };
  } catch (error) {
    const status = error instanceof Refused ? error.status : 0;
    if (status === 404) return { now: null, condition: { "If-None-Match": "*" } };
    if (status === 422) return { now: null, condition: { "If-Match": "*" } }; // a file that cannot be read
    throw error;
  }
}

/** Put something there; where something else is there than `condition` says, `sure` is asked first. Null: it stays.
 * `body` says what is put in the place of what is there, null for what is as `condition` says. */
export async function overwrite<T>(
  api: Api,
  path: string,
  body: (now: T | null) => unknown,
  condition: Record<string, string>,
  sure: (now: T | null) => Promise<boolean>,
): Promise<T | null> {
  try {
    return await api.put<T>(path, body(null), condition);
  } catch (error) {
    if (!(error instanceof Refused && error.status === 412)) throw error;
  }
  const { now, condition: other } = await standing<T>(api, path);
  return (await sure(now)) ? api.put<T>(path, body(now), other) : null;
}
