#!/bin/sh
# Generates the stubs and compiles Detect.java into build/, with Debian's packages:
#   default-jdk-headless libgeronimo-annotation-1.3-spec-java libgrpc-java libnetty-java libperfmark-java
#   libprotobuf-dev protobuf-compiler protobuf-compiler-grpc-java-plugin
# GOOGLE is the folder that has google/rpc/*.proto: a clone of googleapis, or what the Python client has.
set -eu
cd "$(dirname "$0")"
protos=${PROTOS:-../../../protos}
google=${GOOGLE:-$(python3 -c 'import google.rpc; print(list(google.rpc.__path__)[0] + "/../..")')}
build=${BUILD:-build}
prefix=${PREFIX:-}/usr
jars=$prefix/share/java
classpath=
for jar in protobuf grpc-api grpc-context grpc-core grpc-stub grpc-protobuf grpc-protobuf-lite grpc-netty netty-buffer netty-codec \
    netty-codec-http netty-codec-http2 netty-codec-socks netty-common netty-handler netty-handler-proxy \
    netty-resolver netty-transport netty-transport-native-unix-common guava failureaccess opencensus-api perfmark-api \
    geronimo-annotation-1.3-spec; do
    for folder in "$jars" /usr/share/java; do
        test ! -e "$folder/$jar.jar" || classpath=$classpath:$folder/$jar.jar
    done
done

rm -rf "$build"
mkdir -p "$build/stubs" "$build/classes"
"${PROTOC:-protoc}" -I"$protos" -I"$google" -I"$prefix/include" --java_out="$build/stubs" --grpc-java_out="$build/stubs" \
    --plugin=protoc-gen-grpc-java="$prefix/bin/grpc_java_plugin" \
    yolopool/v1/detection.proto yolopool/v1/types.proto google/rpc/status.proto google/rpc/error_details.proto
find "$build/stubs" -name '*.java' >"$build/sources"
javac -nowarn -d "$build/classes" -cp "$classpath" @"$build/sources" Detect.java
echo "java -cp $build/classes$classpath Detect 127.0.0.1:50051 street.jpg shapes"
