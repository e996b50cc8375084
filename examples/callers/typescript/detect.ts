// Detect from TypeScript: node build/detect.js ADDRESS IMAGE MODEL. Prints a line for each object:
// class, confidence, x_min, y_min, x_max, y_max in pixels of the image.

import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import * as grpc from "@grpc/grpc-js";
import * as loader from "@grpc/proto-loader";
import type { ProtoGrpcType } from "./stubs/detection.js";
import type { DetectRequest } from "./stubs/yolopool/v1/DetectRequest.js";
import type { DetectResponse__Output } from "./stubs/yolopool/v1/DetectResponse.js";
import type { DetectionServiceClient } from "./stubs/yolopool/v1/DetectionService.js";
import type { ErrorInfo__Output } from "./stubs/google/rpc/ErrorInfo.js";
import type { RetryInfo__Output } from "./stubs/google/rpc/RetryInfo.js";
import type { Status__Output } from "./stubs/google/rpc/Status.js";

const TIMEOUT_MS = 10_000;
const PAUSE_MS = 200; // where the pool does not say how long
const PROTOS = process.env.PROTOS ?? "../../../protos";
const files = ["yolopool/v1/detection.proto", "google/rpc/status.proto", "google/rpc/error_details.proto"];
const definitions = loader.loadSync(files, {
  keepCase: true, longs: String, enums: String, defaults: true, oneofs: true,
  includeDirs: [PROTOS, "node_modules/google-proto-files"],
});
const { yolopool } = grpc.loadPackageDefinition(definitions) as unknown as ProtoGrpcType;

interface Refusal {
  reason: string;
  retryable: boolean;
  pauseMs: number;
}

/** Reads a message of the loaded protos. */
function read<T>(type: string, bytes: Buffer): T {
  return (definitions[type] as loader.MessageTypeDefinition<object, object>).deserialize(bytes) as T;
}

/** What the trailer grpc-status-details-bin says: a google.rpc.Status with an ErrorInfo. */
function refusal(error: grpc.ServiceError): Refusal {
  // Without a word of the pool the connection failed: it may be restarting.
  const retryable = error.code === grpc.status.UNAVAILABLE;
  const why = { reason: grpc.status[error.code], retryable, pauseMs: PAUSE_MS };
  const [trailer] = error.metadata.get("grpc-status-details-bin");
  if (trailer === undefined) return why;
  const status = read<Status__Output>("google.rpc.Status", trailer as Buffer);
  for (const detail of status.details) {
    const { type_url, value } = detail as unknown as { type_url: string; value: Buffer };
    if (type_url.endsWith("/google.rpc.ErrorInfo")) {
      const info = read<ErrorInfo__Output>("google.rpc.ErrorInfo", value);
      why.reason = info.reason;
      why.retryable = info.metadata.retryable === "true";
    } else if (type_url.endsWith("/google.rpc.RetryInfo")) {
      const delay = read<RetryInfo__Output>("google.rpc.RetryInfo", value).retry_delay;
      why.pauseMs = Number(delay?.seconds ?? 0) * 1000 + (delay?.nanos ?? 0) / 1e6;
    }
  }
  return why;
}

function once(client: DetectionServiceClient, request: DetectRequest, deadline: number) {
  return new Promise<DetectResponse__Output>((resolve, reject) => {
    client.Detect(request, { deadline }, (error, answer) =>
      answer === undefined ? reject(error) : resolve(answer),
    );
  });
}

/** Repeats the call while the pool says that it may succeed later, up to one deadline for all. */
async function detect(client: DetectionServiceClient, request: DetectRequest) {
  const until = Date.now() + TIMEOUT_MS;
  for (;;) {
    try {
      return await once(client, request, until);
    } catch (error) {
      const why = refusal(error as grpc.ServiceError);
      if (!why.retryable || Date.now() + why.pauseMs >= until) throw error;
      await sleep(why.pauseMs);
    }
  }
}

const [address, image, model] = process.argv.slice(2);
const client = new yolopool.v1.DetectionService(address, grpc.credentials.createInsecure());
try {
  const answer = await detect(client, { model, encoded: readFileSync(image) });
  for (const { class_name, confidence, box } of answer.detections) {
    const sides = [box!.x_min, box!.y_min, box!.x_max, box!.y_max].map((side) => side.toFixed(1));
    console.log(class_name, confidence.toFixed(3), ...sides);
  }
} catch (error) {
  const failed = error as grpc.ServiceError;
  console.error(`error ${refusal(failed).reason}: ${failed.details}`);
  process.exitCode = 1;
} finally {
  client.close();
}
