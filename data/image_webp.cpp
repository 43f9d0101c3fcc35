// WebP through libwebp. Of an animation the first frame counts, on a black canvas.
#include <cstdint>
#include <memory>

#include <webp/decode.h>
#include <webp/demux.h>

#include "data/image_codecs.h"

namespace nanovlm::codecs {
namespace {

const char* meaning(VP8StatusCode status) {
  switch (status) {
    case VP8_STATUS_NOT_ENOUGH_DATA:
      return "the file is cut";
    case VP8_STATUS_OUT_OF_MEMORY:
      return "out of memory";
    case VP8_STATUS_UNSUPPORTED_FEATURE:
      return "unsupported feature";
    default:
      return "damaged data";
  }
}

}  // namespace

Image decode_webp(const Source& source) {
  const WebPData file{source.bytes().data(), source.bytes().size()};
  WebPBitstreamFeatures features;
  const VP8StatusCode header = WebPGetFeatures(file.bytes, file.size, &features);
  source.check(header == VP8_STATUS_OK, "header: ", meaning(header));
  Image image = source.new_image(features.width, features.height);

  const std::unique_ptr<WebPDemuxer, decltype(&WebPDemuxDelete)> demuxer(WebPDemux(&file), WebPDemuxDelete);
  source.check(demuxer != nullptr, "expected a whole file, but it is cut or damaged after ", file.size, " bytes");
  WebPIterator frame{};
  source.check(WebPDemuxGetFrame(demuxer.get(), 1, &frame), "expected a frame, found none");
  const std::unique_ptr<WebPIterator, decltype(&WebPDemuxReleaseIterator)> release(&frame, WebPDemuxReleaseIterator);
  source.check(
      frame.complete && frame.x_offset + frame.width <= image.width && frame.y_offset + frame.height <= image.height,
      "frame of ", frame.width, " x ", frame.height, " at ", frame.x_offset, ", ", frame.y_offset,
      " is cut or leaves the canvas of ", image.width, " x ", image.height);

  WebPDecoderConfig config;
  source.check(WebPInitDecoderConfig(&config), "libwebp has another version than its headers");
  const size_t stride = static_cast<size_t>(image.width) * 3;
  const size_t first = static_cast<size_t>(frame.y_offset) * stride + static_cast<size_t>(frame.x_offset) * 3;
  config.output.colorspace = MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA.rgba = image.rgb.data() + first;
  config.output.u.RGBA.stride = static_cast<int>(stride);
  config.output.u.RGBA.size = image.rgb.size() - first;
  const VP8StatusCode status = WebPDecode(frame.fragment.bytes, frame.fragment.size, &config);
  source.check(status == VP8_STATUS_OK, meaning(status));
  return image;
}

}  // namespace nanovlm::codecs
