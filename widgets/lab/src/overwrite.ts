// Overwrite: what is there already takes another's place only as it was read, and once somebody has said so.
import { Refused, type Api } from "./api";

/** The header with which a request changes just what is there now, or makes what is not. */
export async function conditionOf(api: Api, path: string): Promise<Record<string, string>> {
  try {
    return { "If-Match": (await api.tagged(path)).etag || "*" };
  } catch (error) {
    const status = error instanceof Refused ? error.status : 0;
    if (status === 404) return { "If-None-Match": "*" };
    if (status === 422) return { "If-Match": "*" }; // a file that cannot be read
    throw error;
  }
}

/** Put something there; where something else is there than `condition` says, `sure` is asked first. Null: it stays. */
export async function overwrite<T>(
  api: Api,
  path: string,
  body: unknown,
  condition: Record<string, string>,
  sure: () => Promise<boolean>,
): Promise<T | null> {
  try {
    return await api.put<T>(path, body, condition);
  } catch (error) {
    if (!(error instanceof Refused && error.status === 412)) throw error;
  }
  const now = await conditionOf(api, path);
  return (await sure()) ? api.put<T>(path, body, now) : null;
}
