// JPEG through libjpeg-turbo with its default settings (exact integer DCT, smoothed chroma), which are Pillow's.
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include <jerror.h>
#include <jpeglib.h>

#include "data/image_codecs.h"

namespace nanovlm::codecs {
namespace {

// Warnings that leave every pixel intact. All others tell of data that is damaged or missing.
bool harmless(int code) { return code == JWRN_ADOBE_XFORM || code == JWRN_JFIF_MAJOR || code == JWRN_EXTRANEOUS_DATA; }

// The library reports an error by a longjmp back into guarded(), so what runs there must own nothing.
class Jpeg {
 public:
  explicit Jpeg(int max_scans) : max_scans_(max_scans) {
    cinfo.err = jpeg_std_error(&errors_);
    cinfo.client_data = this;
    errors_.error_exit = [](j_common_ptr c) { of(c).give_up(); };
    errors_.emit_message = [](j_common_ptr c, int level) {
      if (level < 0 && !harmless(c->err->msg_code)) of(c).give_up();
    };
    errors_.output_message = [](j_common_ptr) {};
    monitor_.progress_monitor = [](j_common_ptr c) { of(c).count_scans(); };
  }
  ~Jpeg() { jpeg_destroy_decompress(&cinfo); }
  Jpeg(const Jpeg&) = delete;

  template <class F>
  void guarded(const Source& source, const F& f) {
    if (setjmp(jump_) != 0) source.fail(message_);
    f();
  }

  void create() {
    jpeg_create_decompress(&cinfo);
    cinfo.progress = &monitor_;
  }

  jpeg_decompress_struct cinfo{};

 private:
  static Jpeg& of(j_common_ptr c) { return *static_cast<Jpeg*>(c->client_data); }

  [[noreturn]] void give_up() {
    errors_.format_message(reinterpret_cast<j_common_ptr>(&cinfo), message_);
    std::longjmp(jump_, 1);
  }
  void count_scans() {
    if (cinfo.input_scan_number <= max_scans_) return;
    std::snprintf(message_, sizeof message_, "the file has more than %d scans", max_scans_);
    std::longjmp(jump_, 1);
  }

  int max_scans_;
  jpeg_error_mgr errors_{};
  jpeg_progress_mgr monitor_{};
  std::jmp_buf jump_;
  char message_[JMSG_LENGTH_MAX] = "";
};

// a * b / 255, rounded to nearest.
int scaled(int a, int b) {
  const int t = a * b + 128;
  return ((t >> 8) + t) >> 8;
}

// Adobe stores CMYK inverted, and Pillow takes every four-component file to be Adobe's.
void inverted_cmyk_to_rgb(const uint8_t* cmyk, int width, uint8_t* rgb) {
  for (int x = 0; x < width; ++x)
    for (int c = 0; c < 3; ++c) {
      const int white = cmyk[4 * x + 3];
      rgb[3 * x + c] = static_cast<uint8_t>(white - scaled(255 - cmyk[4 * x + c], white));
    }
}

}  // namespace

Image decode_jpeg(const Source& source) {
  Jpeg jpeg(source.limits().max_scans);
  jpeg_decompress_struct& cinfo = jpeg.cinfo;
  jpeg.guarded(source, [&] {
    jpeg.create();
    jpeg_mem_src(&cinfo, source.bytes().data(), static_cast<unsigned long>(source.bytes().size()));
    jpeg_read_header(&cinfo, TRUE);
  });
  const int components = cinfo.num_components;
  source.check(components == 1 || components == 3 || components == 4, "expected 1, 3 or 4 colour components, found ",
               components);
  Image image = source.new_image(cinfo.image_width, cinfo.image_height);
  // A row of its own, in the cache and at an odd address: libjpeg-turbo writes aligned rows past the caches, from where
  // the resize would have to fetch them again.
  std::vector<uint8_t> buffer(4 * static_cast<size_t>(image.width) + 1);

  jpeg.guarded(source, [&] {
    cinfo.out_color_space = components == 4 ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(&cinfo);
    while (cinfo.output_scanline < cinfo.output_height) {
      uint8_t* rgb = image.rgb.data() + static_cast<size_t>(cinfo.output_scanline) * image.width * 3;
      uint8_t* row = buffer.data() + 1;
      jpeg_read_scanlines(&cinfo, &row, 1);
      if (components == 4)
        inverted_cmyk_to_rgb(row, image.width, rgb);
      else
        std::memcpy(rgb, row, 3 * static_cast<size_t>(image.width));
    }
    jpeg_finish_decompress(&cinfo);
  });
  return image;
}

}  // namespace nanovlm::codecs
