// Detect from C#: dotnet run ADDRESS IMAGE MODEL. Prints a line for each object: class, confidence,
// x_min, y_min, x_max, y_max in pixels of the image.

using System.Globalization;
using Google.Protobuf;
using Google.Rpc;
using Grpc.Core;
using Grpc.Net.Client;
using Yolopool.V1;

TimeSpan timeout = TimeSpan.FromSeconds(10);
TimeSpan pause = TimeSpan.FromMilliseconds(200); // where the pool does not say how long

using GrpcChannel channel = GrpcChannel.ForAddress($"http://{args[0]}");
var client = new DetectionService.DetectionServiceClient(channel);
byte[] image = await File.ReadAllBytesAsync(args[1]);
var request = new DetectRequest { Model = args[2], Encoded = ByteString.CopyFrom(image) };
try
{
    DetectResponse answer = await DetectAsync(client, request);
    foreach (Detection one in answer.Detections)
    {
        Box box = one.Box;
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"{one.ClassName} {one.Confidence:F3} {box.XMin:F1} {box.YMin:F1} {box.XMax:F1} {box.YMax:F1}"));
    }
    return 0;
}
catch (RpcException error)
{
    Console.Error.WriteLine($"error {RefusalOf(error).Reason}: {error.Status.Detail}");
    return 1;
}

// Repeats the call while the pool says that it may succeed later, up to one deadline for all.
async Task<DetectResponse> DetectAsync(DetectionService.DetectionServiceClient stub, DetectRequest message)
{
    DateTime until = DateTime.UtcNow + timeout;
    while (true)
    {
        try
        {
            return await stub.DetectAsync(message, deadline: until);
        }
        catch (RpcException error)
        {
            Refusal why = RefusalOf(error);
            if (!why.Retryable || DateTime.UtcNow + why.Pause >= until)
            {
                throw;
            }
            await Task.Delay(why.Pause);
        }
    }
}

// What the trailer grpc-status-details-bin says: a google.rpc.Status with an ErrorInfo.
Refusal RefusalOf(RpcException error)
{
    Google.Rpc.Status? status = error.GetRpcStatus();
    ErrorInfo? info = status?.GetDetail<ErrorInfo>();
    if (info is null)
    {
        // Without a word of the pool the connection failed: it may be restarting.
        return new Refusal(error.StatusCode.ToString(), error.StatusCode == StatusCode.Unavailable, pause);
    }
    bool retryable = info.Metadata.TryGetValue("retryable", out string? word) && word == "true";
    TimeSpan? delay = status?.GetDetail<RetryInfo>()?.RetryDelay?.ToTimeSpan();
    return new Refusal(info.Reason, retryable, delay ?? pause);
}

internal sealed record Refusal(string Reason, bool Retryable, TimeSpan Pause);
