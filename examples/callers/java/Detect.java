// Detect from Java: java Detect ADDRESS IMAGE MODEL. Prints a line for each object:
// class, confidence, x_min, y_min, x_max, y_max in pixels of the image.

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.concurrent.TimeUnit;
import yolopool.v1.DetectionOuterClass.DetectRequest;
import yolopool.v1.DetectionOuterClass.DetectResponse;
import yolopool.v1.DetectionOuterClass.Detection;
import yolopool.v1.DetectionServiceGrpc;
import yolopool.v1.DetectionServiceGrpc.DetectionServiceBlockingStub;

public final class Detect {
  private static final long TIMEOUT_MS = 10_000;
  private static final long PAUSE_MS = 200; // where the pool does not say how long

  public static void main(String[] args) throws Exception {
    DetectRequest request =
        DetectRequest.newBuilder()
            .setModel(args[2])
            .setEncoded(ByteString.copyFrom(Files.readAllBytes(Path.of(args[1]))))
            .build();
    ManagedChannel channel = ManagedChannelBuilder.forTarget(args[0]).usePlaintext().build();
    try {
      print(detect(DetectionServiceGrpc.newBlockingStub(channel), request));
    } catch (StatusRuntimeException error) {
      Refusal why = Refusal.of(error);
      System.err.println("error " + why.reason + ": " + error.getStatus().getDescription());
      System.exit(1);
    } finally {
      channel.shutdownNow();
    }
  }

  /** Repeats the call while the pool says that it may succeed later, up to one deadline for all. */
  static DetectResponse detect(DetectionServiceBlockingStub stub, DetectRequest request)
      throws InterruptedException {
    long until = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(TIMEOUT_MS);
    while (true) {
      try {
        return stub.withDeadlineAfter(until - System.nanoTime(), TimeUnit.NANOSECONDS)
            .detect(request);
      } catch (StatusRuntimeException error) {
        Refusal why = Refusal.of(error);
        long left = TimeUnit.NANOSECONDS.toMillis(until - System.nanoTime());
        if (!why.retryable || why.pauseMs >= left) {
          throw error;
        }
        Thread.sleep(why.pauseMs);
      }
    }
  }

  /** What the trailer grpc-status-details-bin says: a google.rpc.Status with an ErrorInfo. */
  static final class Refusal {
    String reason;
    boolean retryable;
    long pauseMs = PAUSE_MS;

    static Refusal of(StatusRuntimeException error) {
      Refusal why = new Refusal();
      why.reason = error.getStatus().getCode().name();
      // Without a word of the pool the connection failed: it may be restarting.
      why.retryable = error.getStatus().getCode() == io.grpc.Status.Code.UNAVAILABLE;
      com.google.rpc.Status status = StatusProto.fromThrowable(error);
      for (Any detail : status == null ? java.util.List.<Any>of() : status.getDetailsList()) {
        try {
          if (detail.is(ErrorInfo.class)) {
            ErrorInfo info = detail.unpack(ErrorInfo.class);
            why.reason = info.getReason();
            why.retryable = "true".equals(info.getMetadataOrDefault("retryable", "false"));
          } else if (detail.is(RetryInfo.class)) {
            com.google.protobuf.Duration delay = detail.unpack(RetryInfo.class).getRetryDelay();
            why.pauseMs = delay.getSeconds() * 1000 + delay.getNanos() / 1_000_000;
          }
        } catch (InvalidProtocolBufferException damaged) {
          // Its code and message still stand.
        }
      }
      return why;
    }
  }

  private static void print(DetectResponse answer) {
    for (Detection one : answer.getDetectionsList()) {
      System.out.printf(
          Locale.ROOT,
          "%s %.3f %.1f %.1f %.1f %.1f%n",
          one.getClassName(),
          one.getConfidence(),
          one.getBox().getXMin(),
          one.getBox().getYMin(),
          one.getBox().getXMax(),
          one.getBox().getYMax());
    }
  }
}
